import type { HostApi } from '@mags/protocol'
import type { Transaction } from 'kysely'
import { leaseAddresses } from '../ip-leases/lease-addresses.ts'
import type { GroupCommit } from '../state/group-commit.ts'
import type { Tables } from '../state/schema.ts'
import { holdWorkspaces, type WorkspaceWish } from '../workspaces/hold-workspaces.ts'
import type { WorkspaceStore } from '../workspaces/store.ts'
import type { Dispatcher } from './dispatcher.ts'
import type { Job } from './job.ts'
import type { JobStore } from './store.ts'

export interface StartJobDeps {
  readonly store: JobStore
  readonly host: HostApi
  readonly workspaces: WorkspaceStore
  readonly commits: GroupCommit
  readonly dispatcher: Dispatcher
}

export interface StartJobOptions {
  /** The workspace it holds from now on. Not for one with a scope: that is held when its turn comes. */
  readonly wish?: WorkspaceWish | undefined
  /** Runs in the transaction that stores the job, with the job as it will be; when it rejects, there is no job. */
  readonly within?: (transaction: Transaction<Tables>, job: Job) => Promise<void>
  /** Reading of `performance.now()`. */
  readonly acceptedAt?: number
}

/** Stores a job in a transaction of the caller; `dispatcher.reserve` before it, and `dispatcher.add` after it is committed, are the caller's. Rejects as `holdWorkspaces` and `leaseAddresses`. */
export async function storeJob(
  deps: Pick<StartJobDeps, 'store' | 'workspaces'> & { readonly host: Pick<HostApi, 'capabilities'> },
  transaction: Transaction<Tables>,
  wished: Job,
  wish?: WorkspaceWish,
): Promise<Job> {
  const held = wish ? { ...wished, ...(await holdWorkspaces(transaction, deps.workspaces, wish)) } : wished
  const job = held.ipLease ? { ...held, ...(await leaseAddresses(transaction, deps.host.capabilities(), held)) } : held
  await deps.store.insert(transaction, job)
  return job
}

/** Stores a job and hands it to the dispatcher. Rejects with MagsError 'no_capacity', 'rate_limited', as `storeJob` and as `within`. */
export async function startJob(deps: StartJobDeps, wished: Job, { wish, within, acceptedAt = performance.now() }: StartJobOptions = {}): Promise<Job> {
  const release = deps.dispatcher.reserve(wished.accountId)
  try {
    const job = await deps.commits.write(async (transaction) => {
      const stored = await storeJob(deps, transaction, wished, wish)
      await within?.(transaction, stored)
      return stored
    })
    release()
    deps.dispatcher.add(job, acceptedAt)
    return job
  } finally {
    release()
  }
}
