import { MagsError, requestFault, submitJobRequest } from '@mags/protocol'
import { type SubmitDeps, submitJob } from '../jobs/submit-job.ts'
import type { Cron, CronRun } from './cron.ts'
import type { CronStore } from './store.ts'

export interface SubmitRunDeps extends SubmitDeps {
  readonly crons: CronStore
}

/** What came of it. `later`: nothing was changed, it is tried again. */
export type RunFate =
  | { readonly kind: 'submitted'; readonly requestId: string }
  | { readonly kind: 'waiting'; readonly holder: string | undefined }
  | { readonly kind: 'failed' | 'gone' }
  | { readonly kind: 'later'; readonly error: unknown }

/** How long a run waits for a server that has no room, or a fault of ours, to pass. */
const patienceMs = 3600 * 1000

class NotOurs extends Error {}

/**
 * Submits the job of a run in `starting`. The job is stored in the transaction that notes it in the run, so that there is one, whoever else tries and whenever we die. A refusal is noted as the run's reason; with overlap `queue` a
 * workspace in use makes it wait.
 */
export async function submitRun(deps: SubmitRunDeps, runId: string): Promise<RunFate> {
  const { crons, commits } = deps
  const run = await crons.getRun(runId)
  const cron = run && (await crons.get(run.cronId))
  if (run?.status !== 'starting' || cron === undefined) return { kind: 'gone' }
  try {
    const { request_id: requestId } = await submitJob(deps, {
      accountId: cron.accountId,
      request: requestOf(cron, run),
      body: {},
      idempotencyKey: undefined,
      acceptedAt: performance.now(),
      onStored: async (transaction, id) => {
        if (!(await crons.changeRun(transaction, runId, 'starting', { status: 'submitted', reason: null, requestId: id }))) throw new NotOurs()
      },
    })
    return { kind: 'submitted', requestId }
  } catch (error) {
    if (error instanceof NotOurs) return { kind: 'gone' }
    const words = error instanceof Error ? error.message : String(error)
    const isWaiting = cron.overlap === 'queue' && error instanceof MagsError && error.code === 'workspace_in_use'
    const isPassing = !(error instanceof MagsError) || error.code === 'no_capacity' || error.code === 'internal'
    if (isPassing && deps.clock() - Date.parse(run.createdAt) < patienceMs) return { kind: 'later', error }
    const to = { status: isWaiting ? 'waiting' : 'failed', reason: words } as const
    if (!(await commits.write((transaction) => crons.changeRun(transaction, runId, 'starting', to)))) return { kind: 'gone' }
    const holder = error instanceof MagsError ? error.details?.request_id : undefined
    return isWaiting ? { kind: 'waiting', holder: typeof holder === 'string' ? holder : undefined } : { kind: 'failed' }
  }
}

/** A job's name has 63 characters, and eleven are for the time. */
function requestOf(cron: Cron, run: CronRun) {
  const name = `${cron.name.slice(0, 52)}-${Math.floor(Date.parse(run.scheduledFor) / 1000)}`
  const request = submitJobRequest.safeParse({ ...cron.fields, script: cron.script, name })
  if (request.success) return request.data
  throw requestFault(request.error)
}
