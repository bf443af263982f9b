import { type HostApi, MagsError, type WorkspaceVersion } from '@mags/protocol'
import type { Workspace } from './workspace.ts'

/** The versions of a workspace, newest first, of which these must be some. Rejects with MagsError('not_found') that says which there are. */
export async function requireVersions(host: HostApi, workspace: Workspace, wanted: readonly number[]): Promise<readonly WorkspaceVersion[]> {
  const versions = await host.workspaces.versions(workspace.storageId)
  const missing = wanted.find((version) => !versions.some((one) => one.version === version))
  if (missing === undefined) return versions
  const newest = versions[0]?.version
  const there = newest === undefined ? 'it was never saved' : `the newest is ${newest}`
  throw new MagsError('not_found', `workspace '${workspace.workspaceId}' has no version ${missing}; ${there}`)
}
