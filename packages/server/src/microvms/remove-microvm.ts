import type { Logger } from 'pino'
import type { Job } from '../jobs/job.ts'
import type { JobRun } from '../jobs/job-run.ts'
import type { JobStore } from '../jobs/store.ts'
import type { LogStore } from '../logs/log-store.ts'
import { timestamp } from '../state/timestamp.ts'
import type { WorkspaceDeps } from '../workspaces/operate-workspace.ts'
import { removeData } from '../workspaces/remove-workspace.ts'
import type { Microvm } from './microvm.ts'
import type { MicrovmStore } from './store.ts'

export interface RemoveMicrovmDeps extends Pick<WorkspaceDeps, 'workspaces' | 'host' | 'turns'> {
  readonly microvms: MicrovmStore
  readonly store: JobStore
  readonly logs: LogStore
  readonly clock: () => number
  readonly logger: Logger
}

/**
 * Takes away a microVM that is to be deleted: its disk, with keys and port, its job, and then its row. Nothing is saved: the disk is nobody's before its machine ends. One whose disk somebody has by now stays, stopped.
 * `run`: of its newest job, while that is not over.
 */
export async function removeMicrovm(deps: RemoveMicrovmDeps, microvm: Microvm, job: Job | undefined, run: JobRun | undefined): Promise<void> {
  const { workspaces, microvms, clock, logger } = deps
  const { id, accountId, workspaceId } = microvm
  const now = timestamp(clock())
  const workspace = await workspaces.find(accountId, workspaceId)
  if (workspace !== undefined) {
    const isRemoved = await workspaces.markRemoved(workspace.storageId, now, job?.requestId)
    if (!isRemoved && (await workspaces.byStorageId(workspace.storageId)) !== undefined) return await microvms.keep(id, now)
  }
  if (run !== undefined) await dropRun(deps, run)
  const storageId = job?.workspaceStorageId
  // What cannot be taken away now is found by `tendWorkspaces`.
  if (storageId != null)
    removeData(deps, storageId).catch((error: unknown) =>
      logger.warn({ err: error, storageId }, 'the disk of a deleted microVM could not be taken away; trying again later'),
    )
  await microvms.remove(id)
}

async function dropRun({ store, logs, clock }: RemoveMicrovmDeps, run: JobRun): Promise<void> {
  const { requestId } = run
  await run.discard()
  await store.finish(requestId, { status: 'stopped', exitCode: null, error: null, timings: run.timings, completedAt: timestamp(clock()) })
  logs.release(requestId)
}
