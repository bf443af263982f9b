import { type HostApi, MagsError, type WorkspaceHold } from '@mags/protocol'
import { inUse } from './find-workspace.ts'
import type { LeftSaver } from './save-left.ts'
import type { WorkspaceStore } from './store.ts'
import type { Turns } from './turns.ts'
import type { Workspace } from './workspace.ts'

/** What is done to workspaces without a job. */
export interface WorkspaceDeps {
  readonly workspaces: WorkspaceStore
  readonly host: HostApi
  readonly turns: Turns
  readonly left: LeftSaver
  readonly clock: () => number
}

/**
 * Does something to a workspace that no job may have meanwhile. A job that is submitted during it is not refused: it has a higher fence, and waits for its turn.
 * Rejects with MagsError('workspace_in_use') when a job has it.
 */
export async function operateWorkspace<T>(
  deps: WorkspaceDeps,
  workspace: Workspace,
  advice: string,
  work: (takeFence: () => Promise<WorkspaceHold>) => Promise<T>,
): Promise<T> {
  await refuseHeld(deps, workspace, advice)
  const endTurn = await deps.turns.take(workspace.storageId)
  try {
    return await work(async () => {
      const hold = await deps.workspaces.takeFence(workspace.storageId)
      if (hold) return hold
      await refuseHeld(deps, workspace, advice)
      throw new MagsError('not_found', `workspace '${workspace.workspaceId}' was deleted meanwhile`)
    })
  } finally {
    endTurn()
  }
}

/** Throws MagsError('workspace_in_use') when a job has it now. */
export async function refuseHeld(deps: WorkspaceDeps, { storageId, workspaceId }: Workspace, advice: string): Promise<void> {
  const current = await deps.workspaces.byStorageId(storageId)
  const holder = current && (await deps.workspaces.holderOf(current))
  if (holder) throw inUse(workspaceId, holder, advice)
}
