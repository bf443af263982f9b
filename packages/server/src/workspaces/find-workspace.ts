import { MagsError } from '@mags/protocol'
import type { Holder, WorkspaceStore } from './store.ts'
import type { Workspace } from './workspace.ts'

/** Finds the workspace a path names, for the account of the request. Rejects with MagsError('not_found'). */
export async function findWorkspace(store: WorkspaceStore, accountId: string, id: string): Promise<Workspace> {
  const workspace = await store.find(accountId, id)
  if (workspace === undefined) throw new MagsError('not_found', `no workspace '${id.slice(0, 64)}'; 'mags workspace list' shows those there are`)
  return workspace
}

/** A workspace that only one may use at a time has a user. The words of the first half are those of a submit. */
export function inUse(workspaceId: string, holder: Holder, advice: string): MagsError {
  const words = `workspace '${workspaceId}' is already in use by job ${holder.requestId} (status: ${holder.status}); ${advice}`
  return new MagsError('workspace_in_use', words, { details: { workspace_id: workspaceId, request_id: holder.requestId, status: holder.status } })
}
