import { type HostApi, MagsError } from '@mags/protocol'
import { timestamp } from '../../state/timestamp.ts'
import { holdWorkspaces } from '../../workspaces/hold-workspaces.ts'
import type { WorkspaceStore } from '../../workspaces/store.ts'
import { digestOf } from '../check-available.ts'
import type { Job } from '../job.ts'
import type { JobStore } from '../store.ts'

export interface HoldDeps {
  readonly store: JobStore
  readonly host: Pick<HostApi, 'capabilities'>
  readonly workspaces: WorkspaceStore
  readonly clock: () => number
}

/** Which workspace a job has yet to get, and its name; undefined when it needs none, or has it. */
export function workspaceToGet(job: Pick<Job, 'accountId' | 'workspaceId' | 'workspaceScope' | 'workspaceStorageId'>) {
  const { accountId, workspaceId, workspaceScope, workspaceStorageId } = job
  if (workspaceScope === null || workspaceStorageId !== null || workspaceId === null) return undefined
  return { key: workspaceKey(accountId, workspaceId), name: workspaceId }
}

export const workspaceKey = (accountId: string, workspaceId: string) => `${accountId}\0${workspaceId}`

/** The job with its workspace, or who has that. Rejects as `holdWorkspaces`, and with MagsError 'job_not_running' when the job does not wait any more. */
export async function holdForJob({ store, host, workspaces, clock }: HoldDeps, job: Job): Promise<{ readonly job: Job } | { readonly holder: string }> {
  const { accountId, requestId, workspaceId, workspaceScope: scope, baseWorkspaceId, diskGb } = job
  const image = { name: job.image, digest: job.imageDigest ?? digestOf(job.image, host.capabilities()) }
  const wish = { accountId, requestId, workspaceId, scope, baseWorkspaceId, image, now: timestamp(clock()) }
  try {
    const held = await store.setHeld(requestId, async (transaction) => {
      // A disk only grows, and may have been made larger while the job waited.
      const there = workspaceId === null ? undefined : await workspaces.find(accountId, workspaceId, transaction)
      return await holdWorkspaces(transaction, workspaces, { ...wish, diskGb: Math.max(diskGb, there?.diskGb ?? 0) })
    })
    return { job: { ...job, ...held } }
  } catch (error) {
    const holder = error instanceof MagsError && error.code === 'workspace_in_use' ? error.details?.request_id : undefined
    if (typeof holder === 'string') return { holder }
    throw error
  }
}
