import { MagsError } from '@mags/protocol'
import type { LiveJobs } from '../access/live-jobs.ts'
import { ownerOf } from '../access/owner.ts'
import type { AccessStore } from '../access/store.ts'
import { timestamp } from '../state/timestamp.ts'
import { removeData } from '../workspaces/remove-workspace.ts'
import type { Turns } from '../workspaces/turns.ts'
import type { Dispatcher } from './dispatcher.ts'
import type { Job } from './job.ts'
import type { JobRun } from './job-run.ts'
import type { JobRunDeps } from './job-run-deps.ts'

export interface MakeCopyDeps extends Pick<JobRunDeps, 'store' | 'host' | 'logs' | 'clock' | 'logger' | 'saving'> {
  readonly dispatcher: Dispatcher
  readonly access: AccessStore
  readonly live: LiveJobs
  readonly turns: Turns
}

/**
 * Makes the sandbox of a copy whose row is stored; settles once it runs, with whether memory and processes were copied. When that is not possible the row goes again.
 *
 *     pending ──fork──► running ──launch──► running, with `forkedWithMemory`
 *        └────────────────┴── failed, or the server ended ──► (no row)
 */
export async function makeCopy(deps: MakeCopyDeps, source: Job, sourceRun: JobRun, copy: Job): Promise<boolean> {
  const { store, logger } = deps
  const run = deps.dispatcher.track(copy)
  try {
    deps.dispatcher.requireRoom(copy.accountId, 0)
    const withMemory = await beginCopy(deps, source, sourceRun, copy, run)
    if (!(await store.setForked(copy.requestId, { withMemory, restarted: run.restarted }))) throw stopped()
    run.follow().catch((error: unknown) => logger.error({ err: error, requestId: copy.requestId }, 'a copy could not be followed'))
    void sourceRun.log.system(`forked into ${copy.name} (${copy.requestId})`, 'info')
    // The first version; when it cannot be saved now, that is in the log of the copy, and is tried again.
    if (copy.workspaceStorageId !== null) run.sync().catch(() => undefined)
    return withMemory
  } catch (error) {
    if (run.isOver) {
      // Somebody found it and stopped it.
      await run.follow()
      throw stopped()
    }
    await discardCopy(deps, copy, run).catch((fault: unknown) =>
      logger.warn({ err: fault, requestId: copy.requestId }, 'a copy that failed could not be deleted'),
    )
    throw error
  }
}

async function beginCopy(deps: MakeCopyDeps, source: Job, sourceRun: JobRun, copy: Job, run: JobRun): Promise<boolean> {
  const { visibility } = await deps.access.find(ownerOf(source))
  if (visibility !== 'public') await deps.live.setVisibility(copy, visibility)
  using use = await sourceRun.uses.use('request')
  let withMemory = false
  const lease = await run.takeFrom(copy, async (spec, abort) => {
    const forked = await use.running.fork(spec, abort)
    withMemory = forked.withMemory
    return forked.lease
  })
  const kept = withMemory ? 'its programs go on here' : 'files only: its programs do not run here'
  await run.log.system(`forked from ${source.name} (${source.requestId}); ${kept}`, 'info')
  await run.launch({ ...copy, restarted: sourceRun.restarted || !withMemory }, lease)
  return withMemory
}

async function discardCopy(deps: MakeCopyDeps, copy: Job, run: JobRun): Promise<void> {
  await run.discard()
  if (!(await deps.store.discardCopy(copy.requestId, timestamp(deps.clock())))) return
  await deps.logs.remove(copy.requestId)
  // What cannot be taken away now is found by `tendWorkspaces`.
  const { workspaceStorageId } = copy
  const { workspaces } = deps.saving
  if (workspaceStorageId !== null) void removeData({ ...deps, workspaces }, workspaceStorageId).catch(() => undefined)
}

const stopped = () => new MagsError('job_not_running', 'the copy was stopped before it ran')
