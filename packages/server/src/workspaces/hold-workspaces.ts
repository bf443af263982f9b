import { MagsError } from '@mags/protocol'
import type { Transaction } from 'kysely'
import type { Tables } from '../state/schema.ts'
import { inUse } from './find-workspace.ts'
import type { WorkspaceStore } from './store.ts'
import { newStorageId, type Workspace } from './workspace.ts'

/** What a job asks for. */
export interface WorkspaceWish {
  readonly accountId: string
  readonly requestId: string
  readonly workspaceId: string | null
  readonly baseWorkspaceId: string | null
  readonly image: { readonly name: string; readonly digest: string }
  /** Undefined: as large as what it is about. */
  readonly diskGb: number | undefined
  readonly now: string
}

/** What it got. */
export interface HeldWorkspaces {
  readonly diskGb: number
  readonly workspaceStorageId: string | null
  readonly workspaceFence: number | null
  readonly baseStorageId: string | null
  readonly workspaceVersion: number | null
  readonly workspaceSyncedAt: string | null
  readonly workspaceSizeBytes: number | null
}

export const defaultDiskGb = 2

/**
 * Checks a job's workspaces and takes the one it writes, in the transaction that stores the job: there is no job without its hold and no hold without its job.
 * Throws MagsError 'not_found' (base), 'bad_request' (image, size), 'workspace_in_use'.
 */
export async function holdWorkspaces(transaction: Transaction<Tables>, store: WorkspaceStore, wish: WorkspaceWish): Promise<HeldWorkspaces> {
  const { accountId, workspaceId, baseWorkspaceId } = wish
  const base = baseWorkspaceId === null ? undefined : await store.find(accountId, baseWorkspaceId, transaction)
  if (baseWorkspaceId !== null) checkBase(baseWorkspaceId, base)
  const workspace = workspaceId === null ? undefined : await store.find(accountId, workspaceId, transaction)
  for (const one of [workspace, base]) if (one) checkImage(one, wish.image)
  const least = Math.max(workspace?.diskGb ?? 0, base?.diskGb ?? 0)
  const diskGb = wish.diskGb ?? (least === 0 ? defaultDiskGb : least)
  for (const one of [workspace, base]) {
    if (one && diskGb < one.diskGb) throw new MagsError('bad_request', `disk_gb: workspace '${one.workspaceId}' has ${one.diskGb} GB, and a disk can only grow`)
  }
  const held = { diskGb, baseStorageId: base?.storageId ?? null }
  if (workspaceId === null)
    return { ...held, workspaceStorageId: null, workspaceFence: null, workspaceVersion: null, workspaceSyncedAt: null, workspaceSizeBytes: null }
  const target = workspace ?? (await create(transaction, store, { ...wish, workspaceId }, diskGb))
  const taken = await store.hold(transaction, target, { requestId: wish.requestId, diskGb, baseWorkspaceId })
  if ('holder' in taken) {
    const advice = `use 'mags exec ${workspaceId} <command>' to run commands on it, or 'mags ssh ${workspaceId}' to connect interactively`
    throw inUse(workspaceId, taken.holder, advice)
  }
  const saved = target.version > 0
  return {
    ...held,
    workspaceStorageId: target.storageId,
    workspaceFence: taken.fence,
    workspaceVersion: target.version,
    workspaceSyncedAt: target.syncedAt,
    workspaceSizeBytes: saved ? target.sizeBytes : null,
  }
}

async function create(
  transaction: Transaction<Tables>,
  store: WorkspaceStore,
  wish: WorkspaceWish & { readonly workspaceId: string },
  diskGb: number,
): Promise<Workspace> {
  const workspace: Workspace = {
    accountId: wish.accountId,
    workspaceId: wish.workspaceId,
    storageId: newStorageId(),
    fence: 0,
    image: wish.image.name,
    imageDigest: wish.image.digest,
    diskGb,
    sizeBytes: 0,
    version: 0,
    baseWorkspaceId: wish.baseWorkspaceId,
    createdAt: wish.now,
    updatedAt: wish.now,
    syncedAt: null,
    unsavedSince: null,
    saveError: null,
    holderRequestId: null,
  }
  if (await store.insert(transaction, workspace)) return workspace
  // Another server made it since we looked.
  const other = await store.find(wish.accountId, wish.workspaceId, transaction)
  if (other) return other
  throw new MagsError('internal', `workspace '${wish.workspaceId}' could not be made; try again`)
}

function checkBase(name: string, base: Workspace | undefined): asserts base is Workspace {
  if (base === undefined) throw new MagsError('not_found', `base_workspace_id: no workspace '${name}'; 'mags workspace list' shows those there are`)
  if (base.version === 0)
    throw new MagsError('not_found', `base_workspace_id: workspace '${name}' was never saved; it can be a base once a job on it has ended or was synced`)
}

function checkImage(workspace: Workspace, image: WorkspaceWish['image']): void {
  if (workspace.imageDigest === image.digest) return
  const same = workspace.image === image.name
  const was = same ? `${workspace.image} (${short(workspace.imageDigest)})` : workspace.image
  const asked = same ? `${image.name} (${short(image.digest)})` : image.name
  const advice = same ? 'the image was built anew since; start a new workspace' : `ask for image ${workspace.image}, or use another workspace`
  throw new MagsError('bad_request', `image: workspace '${workspace.workspaceId}' was made on image ${was}, and this job asks for ${asked}; ${advice}`)
}

const short = (digest: string) => digest.replace(/^([a-z0-9]+:)?([0-9a-f]{12})[0-9a-f]+$/, '$1$2')
