import type { WorkspaceVersion } from '@mags/protocol'
import { timestamp } from '../state/timestamp.ts'
import { operateWorkspace, type WorkspaceDeps } from './operate-workspace.ts'
import { requireVersions } from './require-version.ts'
import type { Workspace } from './workspace.ts'

/**
 * A new version with the contents of an earlier one; what is there now stays a version, too. Rejects with MagsError 'workspace_in_use', 'not_found' for a version that is not there, and as the host's `restore`.
 */
export async function restoreWorkspace(deps: WorkspaceDeps, workspace: Workspace, version: number): Promise<WorkspaceVersion> {
  const advice = `stop it with 'mags stop ${workspace.workspaceId}' before you restore an earlier version`
  return await operateWorkspace(deps, workspace, advice, async (takeFence) => {
    await requireVersions(deps.host, workspace, [version])
    // Changes that are only on this machine become a version first: going back must not lose them.
    const left = await deps.host.workspaces.saveLeft(await takeFence())
    if (left) await deps.workspaces.recordSaved(workspace.storageId, left.version, { now: timestamp(deps.clock()) })
    const restored = await deps.host.workspaces.restore(await takeFence(), version)
    await deps.workspaces.recordSaved(workspace.storageId, restored, { now: timestamp(deps.clock()) })
    return restored
  })
}
