import { MagsError } from '@mags/protocol'
import type { Logger } from 'pino'
import { timestamp } from '../state/timestamp.ts'
import { inUse } from './find-workspace.ts'
import { refuseHeld, type WorkspaceDeps } from './operate-workspace.ts'
import type { Workspace } from './workspace.ts'

/**
 * Removes a workspace: its name is free at once, and its data go. False when the object store could not take them away now; `tendWorkspaces` tries again.
 * Rejects with MagsError('workspace_in_use') while a job has it or starts from it, and when it is the disk of a microVM.
 */
export async function removeWorkspace(deps: WorkspaceDeps & { readonly logger: Logger }, workspace: Workspace): Promise<boolean> {
  const { workspaceId, storageId } = workspace
  const microvm = await deps.workspaces.microvmOf(workspace)
  if (microvm !== undefined)
    throw new MagsError('workspace_in_use', `workspace '${workspaceId}' is the disk of microVM ${microvm}; 'mags vm delete ${microvm}' takes both away`)
  const advice = `stop it with 'mags stop ${workspaceId}' before you delete its workspace`
  await refuseHeld(deps, workspace, advice)
  const user = await deps.workspaces.userOf(workspace)
  if (user) throw inUse(workspaceId, user, `that job starts from it; delete the workspace once the job is over, or stop it with 'mags stop ${user.requestId}'`)
  if (!(await deps.workspaces.markRemoved(storageId, timestamp(deps.clock())))) {
    await refuseHeld(deps, workspace, advice)
    throw new MagsError('not_found', `workspace '${workspaceId}' was deleted meanwhile`)
  }
  try {
    await removeData(deps, storageId)
    return true
  } catch (error) {
    deps.logger.warn({ err: error, storageId }, 'the data of a deleted workspace could not be taken away; trying again later')
    return false
  }
}

/** Takes away what a removed workspace has on the host and in the object store, and then its row. */
export async function removeData(deps: Pick<WorkspaceDeps, 'workspaces' | 'host' | 'turns'>, storageId: string): Promise<void> {
  const endTurn = await deps.turns.take(storageId)
  try {
    // A fork that was being made when somebody looked for removed ones is whole by now.
    if (!(await deps.workspaces.isRemoved(storageId))) return
    await deps.host.workspaces.remove(storageId)
    await deps.workspaces.forget(storageId)
  } finally {
    endTurn()
  }
}
