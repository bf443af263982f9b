import { randomUUID } from 'node:crypto'
import { type CreateCronRequest, createCronRequest, MagsError, requestFault } from '@mags/protocol'
import type { Transaction } from 'kysely'
import { checkAvailable, chooseImage } from '../jobs/check-available.ts'
import type { Tables } from '../state/schema.ts'
import { timestamp } from '../state/timestamp.ts'
import type { Cron } from './cron.ts'
import { fieldsOf, firstRun } from './schedule.ts'
import type { SubmitRunDeps } from './submit-run.ts'

type Members = Readonly<Record<string, unknown>>

export const mostCrons = 10_000
const own: ReadonlySet<string> = new Set(['name', 'schedule', 'timezone', 'script', 'enabled', 'overlap'])

/**
 * Checks a cron as far as can be before it runs; `members` are those of the request as they came. Resolves with what stores it, to be called in a transaction. Throws MagsError 'bad_request', 'not_available', 'not_found' (a file).
 */
export async function prepareCron(deps: SubmitRunDeps, accountId: string, members: Members): Promise<(transaction: Transaction<Tables>) => Promise<Cron>> {
  const request = parse(members)
  checkJob(deps, request)
  await deps.files?.check(accountId, request.file_ids)
  return async (transaction) => {
    const { crons } = deps
    const now = deps.clock()
    const cron = { ...makeCron(request, members, now), cronId: randomUUID(), accountId, createdAt: timestamp(now) }
    if ((await crons.count(accountId, transaction)) >= mostCrons)
      throw new MagsError('rate_limited', `an account may have ${mostCrons.toLocaleString('en-US')} crons; remove one first`)
    if (!(await crons.insert(transaction, cron))) throw nameTaken(cron.name)
    return cron
  }
}

/** Changes what `change` names; null is the default again. A new schedule, zone or enabling begins anew: nothing that was missed before is caught up. Throws MagsError as `prepareCron`, 'not_found', 'already_exists'. */
export async function updateCron(deps: SubmitRunDeps, accountId: string, id: string, change: Members): Promise<Cron> {
  const { crons, commits, files } = deps
  const seen = await findCron(deps, accountId, id)
  const wished = parse(merge(seen, change))
  checkJob(deps, wished)
  if ('file_ids' in change) await files?.check(accountId, wished.file_ids)
  return await commits.write(async (transaction) => {
    const before = (await crons.lock(transaction, seen.cronId)) ? await crons.get(seen.cronId, transaction) : undefined
    if (before === undefined) throw unknownCron(id)
    const members = merge(before, change)
    const made = makeCron(parse(members), members, deps.clock())
    const same = before.error === null && before.enabled === made.enabled && before.schedule === made.schedule && before.timezone === made.timezone
    const cron = { ...before, ...made, nextRunAt: same ? before.nextRunAt : made.nextRunAt }
    if (cron.name !== before.name && (await crons.isNameTaken(accountId, cron.name, transaction))) throw nameTaken(cron.name)
    await crons.update(transaction, cron)
    if (!cron.enabled) await crons.skipWaiting(transaction, cron.cronId, 'the cron was disabled')
    return cron
  })
}

/** By id or name. Rejects with MagsError('not_found'). */
export async function findCron({ crons }: Pick<SubmitRunDeps, 'crons'>, accountId: string, id: string): Promise<Cron> {
  const cron = await crons.find(accountId, id)
  if (cron === undefined) throw unknownCron(id)
  return cron
}

export function unknownCron(id: string): MagsError {
  return new MagsError('not_found', `no cron ${JSON.stringify(id.slice(0, 64))}; 'mags cron list' shows those there are`)
}

function makeCron(request: CreateCronRequest, members: Members, now: number): Omit<Cron, 'cronId' | 'accountId' | 'createdAt'> {
  const { name, timezone, script, enabled, overlap } = request
  const next = firstRun(request.schedule, timezone, now)
  const fields = Object.fromEntries(Object.entries(members).filter(([member, value]) => !own.has(member) && value !== null))
  return {
    ...{ name, timezone, script, enabled, overlap, fields },
    schedule: fieldsOf(request.schedule),
    nextRunAt: enabled ? timestamp(next) : null,
    error: null,
    updatedAt: timestamp(now),
  }
}

function merge(cron: Cron, change: Members): Members {
  const { name, schedule, timezone, script, enabled, overlap, fields } = cron
  const merged = Object.entries({ name, schedule, timezone, script, enabled, overlap, ...fields, ...change })
  return Object.fromEntries(merged.filter(([, value]) => value !== null))
}

function parse(members: Members): CreateCronRequest {
  const result = createCronRequest.safeParse(members)
  if (result.success) return result.data
  throw requestFault(result.error)
}

/** What a submit would refuse. */
function checkJob(deps: SubmitRunDeps, request: CreateCronRequest): void {
  const capabilities = deps.host.capabilities()
  checkAvailable(request, capabilities, { files: deps.files !== undefined })
  chooseImage(request, capabilities)
}

const nameTaken = (name: string) =>
  new MagsError('already_exists', `name: there is a cron ${JSON.stringify(name)} already; choose another name, or change that one`)
