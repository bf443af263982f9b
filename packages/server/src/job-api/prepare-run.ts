import type { HostApi } from '@mags/protocol'
import type { Transaction } from 'kysely'
import type { Job } from '../jobs/job.ts'
import type { Tables } from '../state/schema.ts'
import type { WorkspaceStore } from '../workspaces/store.ts'
import { checkJob, checkWorkspace, checkWorkspaceSize } from './check-job.ts'
import type { JobDefinition } from './definition.ts'
import { unknownJob } from './find-definition.ts'
import { type Environment, makeRun, mergeEnvironment } from './make-run.ts'
import type { JobDefinitionStore } from './store.ts'

export interface PrepareRunDeps {
  readonly definitions: JobDefinitionStore
  readonly workspaces: WorkspaceStore
  readonly host: HostApi
  readonly clock: () => number
}

/** Stores a job, and makes the first run of it, which the caller stores in the same transaction. Rejects as `checkWorkspace`, `checkWorkspaceSize` and `makeRun`. */
export async function prepareFirstRun(deps: PrepareRunDeps, transaction: Transaction<Tables>, definition: JobDefinition): Promise<Job> {
  const { definitions, host, clock } = deps
  const workspace = await workspaceOf(deps, transaction, definition)
  checkWorkspace(definition, workspace)
  checkWorkspaceSize(definition, workspace)
  const run = makeRun(definition, {}, workspace, host.capabilities(), clock())
  await definitions.insert(transaction, definition)
  return { ...run, requestId: definition.id }
}

/** Makes one more run of a job, which the caller stores in the same transaction. Rejects with MagsError 'not_found' when it was deleted meanwhile, and as `checkJob` and `checkWorkspace`: the machine may have become another one since. */
export async function prepareRun(
  deps: PrepareRunDeps,
  transaction: Transaction<Tables>,
  job: Pick<JobDefinition, 'accountId' | 'id'>,
  overrides: Environment,
): Promise<Job> {
  const { definitions, host, clock } = deps
  const definition = (await definitions.lock(transaction, job.id)) ? await definitions.get(job.accountId, job.id, transaction) : undefined
  if (definition === undefined) throw unknownJob(job.id)
  const { name, script, fields } = definition
  const capabilities = host.capabilities()
  checkJob({ name, script, ...fields }, capabilities)
  const environment = mergeEnvironment(fields.environment, overrides)
  const workspace = await workspaceOf(deps, transaction, definition)
  checkWorkspace(definition, workspace)
  return makeRun(definition, environment, workspace, capabilities, clock())
}

/** The workspace of a job, if it is there already. */
export async function workspaceOf(
  { workspaces }: Pick<PrepareRunDeps, 'workspaces'>,
  transaction: Transaction<Tables>,
  { accountId, workspaceId }: JobDefinition,
) {
  return workspaceId === null ? undefined : await workspaces.find(accountId, workspaceId, transaction)
}
