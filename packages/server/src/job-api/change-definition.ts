import { type ChangeJobRequest, type CreateJobRequest, type HostApi, MagsError } from '@mags/protocol'
import type { Dispatcher } from '../jobs/dispatcher.ts'
import { newRequestId } from '../jobs/job.ts'
import type { GroupCommit } from '../state/group-commit.ts'
import { timestamp } from '../state/timestamp.ts'
import type { Identity } from '../tokens/tokens.ts'
import type { WorkspaceStore } from '../workspaces/store.ts'
import { checkJob, checkWorkspace, checkWorkspaceSize } from './check-job.ts'
import { type JobDefinition, withoutNulls } from './definition.ts'
import { findDefinition, unknownJob } from './find-definition.ts'
import { workspaceOf } from './prepare-run.ts'
import type { JobDefinitionStore } from './store.ts'

export interface ChangeDefinitionDeps {
  readonly definitions: JobDefinitionStore
  readonly workspaces: WorkspaceStore
  readonly commits: GroupCommit
  readonly host: HostApi
  readonly dispatcher: Dispatcher
  readonly clock: () => number
}

/** A job that was not stored yet; its id is the request id its first run is to get. Throws MagsError as `checkJob`. */
export function newDefinition(
  { host, clock }: Pick<ChangeDefinitionDeps, 'host' | 'clock'>,
  { accountId, tokenId }: Identity,
  request: CreateJobRequest,
  template?: { readonly id: string; readonly revision: number },
): JobDefinition {
  checkJob(request, host.capabilities())
  const id = newRequestId()
  const createdAt = timestamp(clock())
  return {
    ...{ id, accountId, userId: tokenId, createdAt, updatedAt: createdAt },
    ...contentOf(id, request),
    templateId: template?.id ?? null,
    templateRevision: template?.revision ?? null,
  }
}

/** Changes what `change` names, for later runs; null is the default again. Rejects with MagsError 'not_found' and as `checkJob` and `checkWorkspace`. */
export async function updateDefinition(deps: ChangeDefinitionDeps, accountId: string, id: string, change: ChangeJobRequest): Promise<JobDefinition> {
  const seen = await findDefinition(deps, accountId, id)
  checkJob(merge(seen, change), deps.host.capabilities())
  return await deps.commits.write(async (transaction) => {
    const before = (await deps.definitions.lock(transaction, seen.id)) ? await deps.definitions.get(accountId, seen.id, transaction) : undefined
    if (before === undefined) throw unknownJob(id)
    const definition = { ...before, ...contentOf(seen.id, merge(before, change)), updatedAt: timestamp(deps.clock()) }
    const workspace = await workspaceOf(deps, transaction, definition)
    // What is not to change may have become wrong meanwhile.
    if (['stateful', 'workspace_id', 'image'].some((member) => member in change)) checkWorkspace(definition, workspace)
    if (change.workspace_size_gb != null || change.workspace_id != null) checkWorkspaceSize(definition, workspace)
    await deps.definitions.update(transaction, definition)
    return definition
  })
}

/** Ends its runs and forgets it; what they logged and kept stays. Rejects with MagsError('not_found'). */
export async function deleteDefinition(deps: ChangeDefinitionDeps, accountId: string, id: string): Promise<void> {
  const { definitions, commits } = deps
  const definition = await findDefinition(deps, accountId, id)
  await stopRuns(deps, definition.id)
  if (!(await commits.write((transaction) => definitions.remove(transaction, definition.id)))) throw unknownJob(id)
  // Those that were started while the others ended.
  await stopRuns(deps, definition.id)
}

async function stopRuns({ definitions, dispatcher }: ChangeDefinitionDeps, definitionId: string): Promise<void> {
  const open = await definitions.unfinishedRuns(definitionId)
  await Promise.all(open.map((requestId) => dispatcher.find(requestId)?.stop()))
}

function contentOf(id: string, request: CreateJobRequest): Pick<JobDefinition, 'name' | 'description' | 'script' | 'fields' | 'workspaceId'> {
  const { name, description, script, type: _type, script_type: _scriptType, ...fields } = request
  const workspaceId = request.stateful ? (request.workspace_id ?? id) : null
  return { name, script, description: description ?? null, fields: withoutNulls(fields), workspaceId }
}

function merge(definition: JobDefinition, change: ChangeJobRequest): CreateJobRequest {
  const { name, description, script, fields } = definition
  const merged = { name, description, script, ...fields, ...change }
  // Who makes a job stateless need not name the workspace that it had.
  if ('stateful' in change && !change.stateful && !('workspace_id' in change)) delete merged.workspace_id
  if (merged.name === undefined || merged.script === undefined) throw new MagsError('bad_request', 'name and script cannot be taken away')
  return { ...merged, name: merged.name, script: merged.script }
}
