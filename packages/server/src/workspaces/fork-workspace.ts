import { MagsError } from '@mags/protocol'
import type { Transaction } from 'kysely'
import type { Tables } from '../state/schema.ts'
import { timestamp } from '../state/timestamp.ts'
import type { WorkspaceDeps } from './operate-workspace.ts'
import { removeData } from './remove-workspace.ts'
import { requireVersions } from './require-version.ts'
import { newStorageId, type Workspace } from './workspace.ts'

/**
 * A new workspace that begins with what a saved version has; nothing is copied. `also` is written together with it. Rejects with MagsError 'already_exists' when the name is taken, 'not_found' for a version that is not there, and as the host's `fork`.
 */
export async function forkWorkspace(
  deps: WorkspaceDeps,
  from: Workspace,
  to: { readonly workspaceId: string; readonly version?: number | undefined },
  also?: (transaction: Transaction<Tables>, fork: Workspace) => Promise<void>,
): Promise<Workspace> {
  const { workspaces, host, turns, clock } = deps
  const taken = () => new MagsError('already_exists', `workspace '${to.workspaceId}' already exists; choose another name, or delete it first`)
  if (await workspaces.find(from.accountId, to.workspaceId)) throw taken()
  const now = timestamp(clock())
  const fork: Workspace = {
    ...from,
    workspaceId: to.workspaceId,
    storageId: newStorageId(),
    fence: 1,
    sizeBytes: 0,
    version: 0,
    baseWorkspaceId: from.workspaceId,
    createdAt: now,
    updatedAt: now,
    syncedAt: null,
    unsavedSince: null,
    saveError: null,
    holderRequestId: null,
  }
  const source = { storageId: from.storageId, ...(to.version === undefined ? {} : { version: to.version }) }
  if (to.version !== undefined) await requireVersions(host, from, [to.version])
  const endTurn = await turns.take(fork.storageId)
  try {
    // Known as something to take away until it is whole, so that a crash leaves nothing behind.
    await workspaces.insertRemoved(fork)
    const version = await host.workspaces.fork(source, { storageId: fork.storageId, fence: fork.fence, ...(fork.scope === null ? {} : { scope: fork.scope }) })
    const published = await workspaces.publish(fork.storageId, version, now, also)
    if (published) return published
    throw taken()
  } catch (error) {
    endTurn()
    // What cannot be taken away now is found by `tendWorkspaces`.
    await removeData(deps, fork.storageId).catch(() => undefined)
    throw error
  } finally {
    endTurn()
  }
}
