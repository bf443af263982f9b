import { MagsError, type MicrovmActionAnswer } from '@mags/protocol'
import type { Dispatcher } from '../jobs/dispatcher.ts'
import { timestamp } from '../state/timestamp.ts'
import { inUse } from '../workspaces/find-workspace.ts'
import type { WorkspaceStore } from '../workspaces/store.ts'
import type { Timers } from '../workspaces/timers.ts'
import { type Microvm, statusOf } from './microvm.ts'
import type { MicrovmKeeper } from './microvm-keeper.ts'
import type { MicrovmChange, MicrovmStore } from './store.ts'

export interface ChangeMicrovmDeps {
  readonly microvms: MicrovmStore
  readonly keeper: MicrovmKeeper
  readonly dispatcher: Dispatcher
  readonly workspaces: WorkspaceStore
  readonly timers: Timers
  readonly clock: () => number
}

/** How long an answer waits for what was asked for; it goes on behind it. */
export const startWaitMs = 10_000
export const stopWaitMs = 30_000

/** By id or name. Rejects with MagsError('not_found'). */
export async function findMicrovm({ microvms }: Pick<ChangeMicrovmDeps, 'microvms'>, accountId: string, id: string): Promise<Microvm> {
  const microvm = await microvms.find(accountId, id)
  if (microvm === undefined) throw unknownMicrovm(id)
  return microvm
}

const unknownMicrovm = (id: string) => new MagsError('not_found', `no microVM ${JSON.stringify(id.slice(0, 64))}; 'mags vm list' shows those there are`)

/** Answers once it runs, cannot, or after a while; one that runs is left as it is. Rejects with MagsError 'not_found', 'no_capacity', 'rate_limited'. */
export async function startMicrovm(deps: ChangeMicrovmDeps, microvm: Microvm): Promise<MicrovmActionAnswer> {
  const runs = (seen: Microvm) => seen.wish === 'running' && seen.error === null
  if (!runs(microvm)) requireRoom(deps, microvm)
  await wishFor(deps, microvm, (seen) => (runs(seen) ? undefined : { wish: 'running', requestId: null, error: null }))
  return await answerWith(deps, microvm, deps.keeper.started(microvm.id), startWaitMs)
}

/** Answers once its disk is saved, or after a while; one that is stopped is left as it is. Rejects with MagsError('not_found'). */
export async function stopMicrovm(deps: ChangeMicrovmDeps, microvm: Microvm): Promise<MicrovmActionAnswer> {
  await wishFor(deps, microvm, (seen) => (seen.wish === 'stopped' ? undefined : { wish: 'stopped', error: null }))
  return await answerWith(deps, microvm, deps.keeper.look(microvm.id), stopWaitMs)
}

/** A stop and a start; of one that is stopped a start. Rejects as `startMicrovm`. */
export async function restartMicrovm(deps: ChangeMicrovmDeps, microvm: Microvm): Promise<MicrovmActionAnswer> {
  requireRoom(deps, microvm)
  await wishFor(deps, microvm, () => ({ wish: 'running', requestId: null, error: null }))
  return await answerWith(deps, microvm, deps.keeper.started(microvm.id), stopWaitMs + startWaitMs)
}

/** With its disk and keys, without saving. Rejects with MagsError 'not_found', 'workspace_in_use' when a job of somebody else has its disk. */
export async function deleteMicrovm(deps: ChangeMicrovmDeps, microvm: Microvm): Promise<void> {
  await refuseUsed(deps, microvm)
  await wishFor(deps, microvm, () => ({ wish: 'deleted' }))
  await settlesIn(deps, deps.keeper.look(microvm.id), stopWaitMs)
  // Somebody was faster.
  if ((await deps.microvms.get(microvm.id))?.wish === 'stopped') await refuseUsed(deps, microvm)
}

async function refuseUsed({ workspaces, microvms }: ChangeMicrovmDeps, { accountId, id, name, workspaceId }: Microvm): Promise<void> {
  const workspace = await workspaces.find(accountId, workspaceId)
  if (workspace === undefined) return
  const holder = await workspaces.holderOf(workspace)
  const own = (await microvms.newestJob(id))?.requestId
  const user = holder === undefined || holder.requestId === own ? await workspaces.userOf(workspace) : holder
  if (user) throw inUse(workspaceId, user, `it is the disk of microVM ${name}; stop that job with 'mags stop ${user.requestId}' before you delete the microVM`)
}

/** Says so before anything is stored, where somebody waits for the answer. */
function requireRoom({ dispatcher }: ChangeMicrovmDeps, { accountId }: Microvm): void {
  dispatcher.reserve(accountId)()
}

async function wishFor({ microvms, clock }: ChangeMicrovmDeps, { id }: Microvm, decide: (seen: Microvm) => MicrovmChange | undefined): Promise<void> {
  if ((await microvms.change(id, timestamp(clock()), decide)) === undefined) throw unknownMicrovm(id)
}

async function answerWith(deps: ChangeMicrovmDeps, { id }: Microvm, work: Promise<void>, waitMs: number): Promise<MicrovmActionAnswer> {
  await settlesIn(deps, work, waitMs)
  const microvm = await deps.microvms.get(id)
  if (microvm === undefined || microvm.wish === 'deleted') throw unknownMicrovm(id)
  const job = await deps.microvms.newestJob(id)
  const run = job && deps.dispatcher.find(job.requestId)
  const status = statusOf(microvm, job, run !== undefined && deps.keeper.isUp(run))
  return { success: status !== 'error', status, ...(microvm.error === null ? {} : { error: microvm.error }) }
}

async function settlesIn({ timers }: ChangeMicrovmDeps, work: Promise<void>, waitMs: number): Promise<void> {
  const end = new AbortController()
  await Promise.race([work, timers.wait(waitMs, end.signal).catch(() => undefined)])
  end.abort(new Error('no longer waited for'))
}
