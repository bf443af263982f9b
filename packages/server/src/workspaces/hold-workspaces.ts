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
  /** The newest version of an image; `isDefault`: it was not asked for, so that of the workspace is as good. */
  readonly image: { readonly name: string; readonly digest: string; readonly isDefault?: boolean }
  /** What it keeps of the workspace: only this folder; all of it when absent. */
  readonly scope?: string | null
  /** Undefined: as large as what it is about. */
  readonly diskGb: number | undefined
  readonly now: string
}

/** What it got. */
export interface HeldWorkspaces {
  readonly diskGb: number
  /** The version that the workspaces were made on, whatever is the newest by now. */
  readonly image: string
  readonly imageDigest: string
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
  if (workspace) checkScope(workspace, wish.scope ?? null)
  const image = imageOf(workspace, base, wish.image)
  const least = Math.max(workspace?.diskGb ?? 0, base?.diskGb ?? 0)
  const diskGb = wish.diskGb ?? (least === 0 ? defaultDiskGb : least)
  for (const one of [workspace, base]) {
    if (one && diskGb < one.diskGb) throw new MagsError('bad_request', `disk_gb: workspace '${one.workspaceId}' has ${one.diskGb} GB, and a disk can only grow`)
  }
  const held = { diskGb, image: image.name, imageDigest: image.digest, baseStorageId: base?.storageId ?? null }
  if (workspaceId === null)
    return { ...held, workspaceStorageId: null, workspaceFence: null, workspaceVersion: null, workspaceSyncedAt: null, workspaceSizeBytes: null }
  const target = workspace ?? (await create(transaction, store, { ...wish, workspaceId, image }, diskGb))
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
    scope: wish.scope ?? null,
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

/** What a workspace keeps is settled when it is made: the one kind of job would lose what the other means to keep. */
function checkScope({ workspaceId, scope }: Workspace, wished: string | null): void {
  if (scope === wished) return
  const words =
    scope === null ? `keeps its whole file system, and a stateful job keeps ${wished} only` : `keeps ${scope} only, for stateful jobs of the Jobs API`
  throw new MagsError('bad_request', `workspace_id: workspace '${workspaceId}' ${words}; use another workspace`)
}

/** What there is was made on one version of an image, and goes on with it. */
function imageOf(workspace: Workspace | undefined, base: Workspace | undefined, asked: WorkspaceWish['image']): WorkspaceWish['image'] {
  const first = workspace ?? base
  if (first === undefined) return asked
  for (const one of [workspace, base]) if (one && one.image !== asked.name && !asked.isDefault) throw otherImage(one, asked.name)
  if (workspace && base && workspace.imageDigest !== base.imageDigest) throw differentImages(workspace, base)
  return { name: first.image, digest: first.imageDigest }
}

function otherImage({ workspaceId, image }: Workspace, asked: string): MagsError {
  const advice = `ask for image ${image}, or use another workspace`
  return new MagsError('bad_request', `image: workspace '${workspaceId}' was made on image ${image}, and this job asks for ${asked}; ${advice}`)
}

function differentImages(workspace: Workspace, base: Workspace): MagsError {
  const [own, other] = [workspace, base].map(({ image, imageDigest }) => `${image} (${short(imageDigest)})`)
  const words = `workspace '${workspace.workspaceId}' was made on image ${own}, and the base '${base.workspaceId}' on ${other}`
  return new MagsError('bad_request', `image: ${words}; both must be of the same version, so start a new workspace from the base`)
}

const short = (digest: string) => digest.replace(/^([a-z0-9]+:)?([0-9a-f]{12})[0-9a-f]+$/, '$1$2')
