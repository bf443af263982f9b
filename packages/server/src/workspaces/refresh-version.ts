import type { HostApi } from '@mags/protocol'
import type { WorkspaceStore } from './store.ts'

export interface RefreshDeps {
  readonly workspaces: WorkspaceStore
  readonly host: HostApi
}

/** Notes the newest version of the object store, which is ahead of the database when the server died after a save. Rejects with what the host's `versions` rejects with. */
export async function refreshVersion(deps: RefreshDeps, storageId: string): Promise<void> {
  const [newest] = await deps.host.workspaces.versions(storageId)
  if (newest) await deps.workspaces.recordVersion(storageId, newest)
}
