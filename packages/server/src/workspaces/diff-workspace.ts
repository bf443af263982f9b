import { type HostApi, MagsError, type WorkspaceDiff } from '@mags/protocol'
import { requireVersions } from './require-version.ts'
import type { Workspace } from './workspace.ts'

export interface DiffWish {
  readonly from?: number | undefined
  readonly to?: number | undefined
  readonly content: boolean
  readonly limit: number
}

/** What two versions have differently: by default the newest and the one before it; before the first, 0, there is the image alone. Rejects with MagsError 'not_found', 'bad_request' and as the host's `diff`. */
export async function diffWorkspace(host: HostApi, workspace: Workspace, wish: DiffWish): Promise<{ from: number; to: number; diff: WorkspaceDiff }> {
  const named = [wish.from, wish.to].filter((version): version is number => version !== undefined && version !== 0)
  const [newest] = await requireVersions(host, workspace, named)
  const to = wish.to ?? newest?.version ?? 0
  if (to === 0) throw new MagsError('not_found', `workspace '${workspace.workspaceId}' was never saved, so there is nothing to compare`)
  const from = wish.from ?? to - 1
  const diff = await host.workspaces.diff(workspace.storageId, { from, to, content: wish.content, limit: wish.limit })
  return { from, to, diff }
}
