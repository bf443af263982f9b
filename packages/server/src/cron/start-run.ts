import { randomUUID } from 'node:crypto'
import type { CronCause } from '@mags/protocol'
import type { Transaction } from 'kysely'
import type { Tables } from '../state/schema.ts'
import type { Cron, CronRun } from './cron.ts'
import type { CronStore } from './store.ts'

/** Runs of a cron with overlap `queue` that may wait at once. */
export const mostWaiting = 10

/**
 * Stores a run of a cron that the caller has locked in this transaction, as its overlap rule has it: to be started, to wait, or skipped. Undefined when there is a run of that moment already.
 */
export async function startRun(
  store: CronStore,
  transaction: Transaction<Tables>,
  cron: Pick<Cron, 'cronId' | 'overlap'>,
  due: { readonly scheduledFor: string; readonly cause: CronCause; readonly now: string },
): Promise<CronRun | undefined> {
  const open = cron.overlap === 'allow' ? [] : await store.openRuns(transaction, cron.cronId, mostWaiting + 1)
  const run: CronRun = {
    runId: randomUUID(),
    cronId: cron.cronId,
    scheduledFor: due.scheduledFor,
    cause: due.cause,
    requestId: null,
    createdAt: due.now,
    job: null,
    ...fate(cron.overlap, open),
  }
  return (await store.addRun(transaction, run)) ? run : undefined
}

function fate(overlap: Cron['overlap'], open: readonly CronRun[]): Pick<CronRun, 'status' | 'reason'> {
  const [first] = open
  if (first === undefined) return { status: 'starting', reason: null }
  if (overlap === 'skip') return { status: 'skipped', reason: `${describeRun(first)} is not over` }
  if (open.filter(({ status }) => status === 'waiting').length < mostWaiting) return { status: 'waiting', reason: `${describeRun(first)} is not over` }
  return { status: 'skipped', reason: `${mostWaiting} runs wait already` }
}

function describeRun({ scheduledFor, requestId }: CronRun): string {
  return `the run of ${scheduledFor}${requestId === null ? '' : ` (job ${requestId})`}`
}
