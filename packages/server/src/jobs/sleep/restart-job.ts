import { type HostApi, MagsError, type RunningSandbox, type ScriptSpec } from '@mags/protocol'
import type { JobLog } from '../../logs/job-log.ts'
import type { WorkspaceStore } from '../../workspaces/store.ts'
import { type Job, sandboxSpecOf } from '../job.ts'
import type { JobStore } from '../store.ts'
import { tellProgress } from '../tell-progress.ts'
import { startupOutput } from './startup-output.ts'

export interface RestartDeps {
  readonly store: JobStore
  readonly host: HostApi
  readonly saving: { readonly workspaces: WorkspaceStore }
}

/** Run when a job has no startup command: its sandbox is there for SSH, exec and files. */
const nothingToStart = ':'

/**
 * A new sandbox for a job that was released, made from its workspace, with the startup command running in it. The job holds the workspace all the time, with a new fence for the new sandbox.
 * Rejects with the reason of `abort`, and as `HostApi.acquire` and `SandboxLease.run`.
 */
export async function restartJob(deps: RestartDeps, requestId: string, log: JobLog, abort: AbortSignal): Promise<RunningSandbox> {
  const job = await deps.store.get(requestId)
  if (job?.workspaceStorageId == null) throw new MagsError('internal', 'the job has no workspace to wake from')
  const fence = await deps.saving.workspaces.renewFence(job.workspaceStorageId, requestId)
  if (fence === undefined) throw new MagsError('workspace_fenced', `the job does not hold workspace '${job.workspaceId}' any more`)
  abort.throwIfAborted()
  const held: Job = { ...job, workspaceFence: fence }
  const lease = await deps.host.acquire(sandboxSpecOf(held, true), abort, tellProgress(log))
  if (abort.aborted) {
    await lease.release().catch(() => undefined)
    throw abort.reason
  }
  return await lease.run(startupScript(job), startupOutput(log))
}

/** What a sandbox runs first that goes on from files of another one. */
export const startupScript = (job: Pick<Job, 'startupCommand' | 'environment'>): ScriptSpec => ({
  script: job.startupCommand ?? nothingToStart,
  environment: job.environment,
})
