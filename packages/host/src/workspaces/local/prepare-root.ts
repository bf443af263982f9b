import { MagsError, type WorkspaceHold, type WorkspaceSource } from '@mags/protocol'
import type { Logger } from 'pino'
import type { SandboxRoot } from '../../drivers/driver.ts'
import { growDisk } from '../../drivers/scratch-disk.ts'
import type { Image } from '../../images/image-catalogue.ts'
import type { Manifest, WorkspaceClaim, WorkspaceRepository } from '../repository/repository.ts'
import { checkScope } from './check-scope.ts'
import { type FreezeCopyDeps, freezeCopy } from './freeze-copy.ts'
import type { KeyedLock } from './keyed-lock.ts'
import type { LayerDisks } from './layer-disks.ts'
import { scopeFolder } from './scope-folder.ts'
import type { VersionDisks } from './version-disks.ts'
import type { WorkingCopies } from './working-copies.ts'
import type { WorkingCopy } from './working-copy.ts'

export interface PrepareRootDeps extends Pick<FreezeCopyDeps, 'narrow'> {
  readonly repository: WorkspaceRepository
  readonly copies: WorkingCopies
  readonly disks: LayerDisks
  readonly versions: VersionDisks
  readonly locks: KeyedLock
  readonly logger: Pick<Logger, 'warn'>
}

export interface RootRequest {
  readonly image: Image
  readonly diskGb: number
  /** Whether the driver puts layers on top of each other; if not, one disk has all. */
  readonly stacks: boolean
  readonly workspace?: WorkspaceHold
  readonly base?: WorkspaceSource
  readonly onProgress: (words: string) => void
  readonly abort?: AbortSignal
}

export interface PreparedRoot {
  readonly root: SandboxRoot
  /** Settles once the workspace is ours; until then nothing of a user may run on the root. Rejects as `WorkspaceRepository.claim`. */
  readonly claimed: Promise<void>
  /** The layers may go; after the sandbox is gone. */
  release(): Promise<void>
}

/** More layers than this are read into one. */
const deepest = 8

/**
 * Makes the disks of a sandbox's root ready: finds the layers on this machine, or reads them from the object store. The four modes: nothing (not our business), a workspace, a base, a fork of a base into
 * a workspace.
 */
export async function prepareRoot(deps: PrepareRootDeps, request: RootRequest): Promise<PreparedRoot> {
  const { workspace, base } = request
  // Before the workspace is locked: two forks of each other must not wait for each other.
  const source = base === undefined ? undefined : await startFrom(deps, request, base)
  if (workspace === undefined) {
    if (source === undefined) throw new MagsError('internal', 'a root needs a workspace or a base')
    // Without stacking the base's contents are on a disk of its own already, and nobody saves it.
    const root = request.stacks ? { lowerDisks: filesOf(deps, source.layers) } : rootOf(deps, source.layers, source.scope)
    return { root, claimed: Promise.resolve(), release: source.release }
  }
  try {
    return await deps.locks.run(workspace.storageId, () => prepareWorkspace(deps, request, workspace, source))
  } finally {
    await source?.release()
  }
}

async function prepareWorkspace(deps: PrepareRootDeps, request: RootRequest, hold: WorkspaceHold, source: StartFrom | undefined): Promise<PreparedRoot> {
  const known = source === undefined && deps.copies.get(hold.storageId) !== undefined
  const { claim, claimed } = known
    ? await foreseeClaim(deps, hold)
    : { claim: await deps.repository.claim(hold.storageId, hold.fence), claimed: Promise.resolve() }
  const scope = hold.scope ?? deps.copies.get(hold.storageId)?.scope
  const start = source === undefined ? await continueCopy(deps, request, claim, scope) : await forkInto(deps, request, claim, source, scope)
  const copy: WorkingCopy = {
    ...start,
    storageId: hold.storageId,
    frozen: false,
    writtenBy: request.stacks ? 'host' : 'guest',
    open: true,
    halted: start.halted ?? false,
    image: { name: request.image.name, digest: request.image.digest },
    bootId: deps.copies.bootId,
    settled: false,
    ...(scope === undefined ? {} : { scope }),
  }
  await deps.copies.set(copy)
  deps.disks.stock()
  return { root: rootOf(deps, copy.layers, scope ?? source?.scope), claimed, release: deps.copies.pin(copy.layers) }
}

/** What a claim will be is known after a look at the head. Making it takes as long as mounting a disk, so both are done at once. */
async function foreseeClaim({ repository }: PrepareRootDeps, { storageId, fence }: WorkspaceHold) {
  const version = (await repository.versions(storageId))[0]?.version ?? 0
  const claimed = repository.claim(storageId, fence).then((claim) => {
    if (claim.version !== version)
      throw new MagsError('workspace_fenced', `workspace ${storageId} was saved by another holder in this moment; start the job again`)
  })
  // Whoever never gets as far as to wait for it does not need it.
  claimed.catch(() => undefined)
  return { claim: { storageId, fence, version }, claimed }
}

type Start = Pick<WorkingCopy, 'layers' | 'version' | 'versionUnder' | 'claim' | 'diskGb'> & Partial<Pick<WorkingCopy, 'halted'>>

/** The workspace as it is here, as the store has it, or empty. */
async function continueCopy(deps: PrepareRootDeps, request: RootRequest, claim: WorkspaceClaim, scope: string | undefined): Promise<Start> {
  const copy = await usableCopy(deps, request, claim, scope)
  // What a guest has written stays as large as it is until it is saved.
  const diskGb = copy?.writtenBy === 'guest' ? copy.diskGb : Math.max(request.diskGb, copy?.diskGb ?? 0)
  const start = { version: claim.version, versionUnder: copy?.versionUnder ?? 0, claim, diskGb }
  if (copy === undefined) {
    const layer = claim.version === 0 ? await deps.disks.create(diskGb) : await restoreNewest(deps, request, claim, diskGb)
    return { ...start, layers: [layer] }
  }
  const [top, ...lower] = copy.layers
  if (top === undefined) throw new MagsError('internal', 'a working copy has no layer')
  if (!copy.frozen && !deps.copies.isShared(top, copy.storageId)) {
    if (diskGb > copy.diskGb) await growDisk(deps.disks.file(top), diskGb)
    // What an earlier guest left, until the next one gets the disk.
    return { ...start, layers: [top, ...lower], halted: copy.open && copy.halted }
  }
  if (!request.stacks) return { ...start, layers: [await deps.disks.copy(top)], diskGb: copy.diskGb }
  // What is not kept of it must not come to light under another layer.
  if (scope !== undefined && !copy.frozen) return { ...start, layers: [await deps.disks.copy(top), ...lower], diskGb: copy.diskGb }
  if (copy.layers.length < deepest) return { ...start, versionUnder: copy.version, layers: [await deps.disks.create(diskGb), ...copy.layers] }
  return { ...start, layers: [await restoreNewest(deps, request, claim, diskGb)] }
}

async function forkInto(deps: PrepareRootDeps, request: RootRequest, claim: WorkspaceClaim, source: StartFrom, scope: string | undefined): Promise<Start> {
  if (deps.copies.get(claim.storageId)?.open) throw unsaved(claim.storageId)
  if (scope !== undefined && scope !== source.scope) await checkScope(source.manifest, deps.repository.packs, scope)
  // The fork's first version is the base's contents: whatever becomes of the base, they are this workspace's own from now on.
  const { claim: forked } = await deps.repository.commit(claim, source.manifest, { reason: 'fork', uploadedBytes: 0 })
  const start = { version: forked.version, versionUnder: forked.version, claim: forked, diskGb: request.diskGb }
  if (!request.stacks) return { ...start, layers: source.layers }
  return { ...start, layers: [await deps.disks.create(request.diskGb), ...source.layers] }
}

/** The copy of this machine if a sandbox of this kind can go on from it. */
async function usableCopy(
  deps: PrepareRootDeps,
  { stacks, image, diskGb }: RootRequest,
  claim: WorkspaceClaim,
  scope: string | undefined,
): Promise<WorkingCopy | undefined> {
  const copy = deps.copies.get(claim.storageId)
  if (copy === undefined) return undefined
  if (copy.image.digest !== image.digest) {
    throw new MagsError('bad_request', `image: the workspace was made on ${copy.image.name} (${copy.image.digest}), not on ${image.name} (${image.digest})`)
  }
  const current = copy.version === claim.version
  if (copy.open && !current) {
    deps.logger.warn(
      { workspace: copy.storageId, version: copy.version, newest: claim.version },
      'changes on this machine are older than what another holder has saved; they are dropped',
    )
  }
  // What layers under the topmost have is seen, whatever is to be kept.
  const isNarrow = scope === copy.scope || (copy.layers.length === 1 && !copy.frozen)
  const rightKind = isNarrow && (stacks ? copy.writtenBy === 'host' : copy.layers.length === 1)
  if (current && copy.open && !rightKind) throw unsaved(copy.storageId)
  // The host does not look into a disk that a guest has written, not even to make it larger.
  const fits = copy.writtenBy === 'host' || copy.diskGb >= diskGb || copy.open
  if (current && rightKind && fits) return copy
  await deps.copies.delete(copy.storageId)
  return undefined
}

interface StartFrom {
  readonly layers: readonly string[]
  readonly manifest: Manifest
  /** Of the base. Without stacking its disk may have more. */
  readonly scope: string | undefined
  readonly release: () => Promise<void>
}

/** Layers with the contents of a version, ours to read. Without stacking: one disk, ours to write. */
async function startFrom(deps: PrepareRootDeps, request: RootRequest, base: WorkspaceSource): Promise<StartFrom> {
  const { manifest, version } = await deps.repository.manifest(base.storageId, base.version)
  if (manifest.image.digest !== request.image.digest) {
    const { image } = manifest
    throw new MagsError(
      'bad_request',
      `image: the base workspace was made on ${image.name} (${image.digest}), not on ${request.image.name} (${request.image.digest})`,
    )
  }
  const source = { storageId: base.storageId, version: version.version, newest: base.version === undefined, image: manifest.image }
  const found = await deps.locks.run(base.storageId, () => findLayers(deps, request, source))
  if (request.stacks) return { ...found, manifest }
  try {
    const layer = await deps.disks.copy(found.layers[0] ?? '')
    return { layers: [layer], manifest, scope: found.scope, release: deps.copies.pin([layer]) }
  } finally {
    await found.release()
  }
}

interface Source {
  readonly storageId: string
  readonly version: number
  readonly newest: boolean
  readonly image: WorkingCopy['image']
}

async function findLayers(deps: PrepareRootDeps, request: RootRequest, { storageId, version, newest, image }: Source) {
  const copy = deps.copies.get(storageId)
  const readable = request.stacks ? copy?.writtenBy === 'host' && copy.layers.length < deepest : copy?.layers.length === 1
  // A sandbox reads these layers from now on, so nobody may write to them any more.
  if (copy !== undefined && !copy.open && copy.version === version && readable && (!request.stacks || (await freezeCopy(deps, copy)) !== undefined)) {
    return { layers: copy.layers, scope: copy.scope, release: deps.copies.pin(copy.layers) }
  }
  if (copy !== undefined || !newest) return { ...(await deps.versions.use(storageId, version, request)), scope: copy?.scope }
  const layers = [await deps.versions.restore(storageId, version, request)]
  const { bootId } = deps.copies
  await deps.copies.set({
    storageId,
    layers,
    frozen: true,
    writtenBy: 'host',
    version,
    versionUnder: 0,
    open: false,
    halted: false,
    image,
    diskGb: request.diskGb,
    bootId,
    settled: false,
  })
  return { layers, scope: undefined, release: deps.copies.pin(layers) }
}

async function restoreNewest(deps: PrepareRootDeps, request: RootRequest, claim: WorkspaceClaim, diskGb: number): Promise<string> {
  return await deps.versions.restore(claim.storageId, claim.version, { ...request, diskGb })
}

function rootOf(deps: PrepareRootDeps, [top, ...lower]: readonly string[], scope: string | undefined): SandboxRoot {
  if (top === undefined) throw new MagsError('internal', 'a root has no layer')
  return { upperDisk: deps.disks.file(top), lowerDisks: filesOf(deps, lower), ...(scope === undefined ? {} : { scope: scopeFolder(scope) }) }
}

const filesOf = ({ disks }: PrepareRootDeps, layers: readonly string[]) => layers.map((layer) => disks.file(layer))

const unsaved = (storageId: string) =>
  new MagsError('workspace_unsaved', `workspace ${storageId} has changes of an earlier job that are being saved; try again in a moment`)
