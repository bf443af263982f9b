import { rm } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { type HostWorkspaces, MagsError, type WorkspaceHold, type WorkspaceSaved, type WorkspaceSource, type WorkspaceVersion } from '@mags/protocol'
import type { Logger } from 'pino'
import { diffTrees } from './diff/diff-trees.ts'
import { checkScope } from './local/check-scope.ts'
import { type FreezeCopyDeps, freezeCopy } from './local/freeze-copy.ts'
import type { KeyedLock } from './local/keyed-lock.ts'
import type { LayerDisks } from './local/layer-disks.ts'
import { OpenWorkspace, type SavedSandbox } from './local/open-workspace.ts'
import { type PreparedRoot, prepareRoot, type RootRequest } from './local/prepare-root.ts'
import type { VersionDisks } from './local/version-disks.ts'
import type { WorkingCopies } from './local/working-copies.ts'
import { isReadable } from './local/working-copy.ts'
import type { WorkspaceRepository } from './repository/repository.ts'

export interface WorkspacesDeps extends Pick<FreezeCopyDeps, 'narrow'> {
  readonly repository: WorkspaceRepository
  readonly copies: WorkingCopies
  readonly disks: LayerDisks
  readonly versions: VersionDisks
  readonly locks: KeyedLock
  readonly logger: Logger
}

/** Saves what an ended sandbox left, through a sandbox made for it. */
export type LeftSaver = (hold: WorkspaceHold, image: WorkspaceVersion['image'], diskGb: number, isolation: 'vm' | 'container') => Promise<WorkspaceSaved>

/** Well below the depth at which a start has to wait for it. */
const flattenFrom = 4
/** A sandbox that is being destroyed lets go of its disks within milliseconds. */
const leaveWithinMs = 10_000
const collectEveryMs = 6 * 3600 * 1000
const settleEveryMs = 30_000

/**
 * All workspaces of this machine and their versions in the object store.
 *
 *     opened ──serve──▶ serving ──close──▶ closed
 */
export class Workspaces implements HostWorkspaces {
  readonly #deps: WorkspacesDeps
  readonly #open = new Map<string, OpenWorkspace>()
  readonly #timers: NodeJS.Timeout[] = []
  #saveLeft: LeftSaver | undefined
  #closed = false

  constructor(deps: WorkspacesDeps) {
    this.#deps = deps
  }

  /** Begins what is done in the background, once every sandbox that lives on was adopted. `saveLeft` runs a sandbox to read what was left on a disk. */
  async serve(saveLeft: LeftSaver) {
    this.#saveLeft = saveLeft
    for (const copy of this.#deps.copies.all()) {
      if (isReadable(copy) || this.#open.has(copy.storageId)) continue
      this.#deps.logger.warn(
        { workspace: copy.storageId, version: copy.version },
        'a machine of the last run was lost with what it had not saved of its workspace',
      )
      await this.#deps.copies.delete(copy.storageId)
    }
    const collect = () => this.#deps.repository.collectGarbage().then((result) => this.#deps.logger.debug(result, 'packs that no version needs were removed'))
    this.#every(collectEveryMs, 'packs that no version needs could not be removed', collect)
    this.#every(settleEveryMs, 'local copies of workspaces could not be written out', () => this.#settleAll())
  }

  /** Makes the disks of a root ready; rejects as `HostApi.acquire` does. */
  async prepare(request: RootRequest): Promise<PreparedRoot> {
    const storageId = request.workspace?.storageId
    // Its last sandbox may be on its way out still, with the disk in its hands.
    if (storageId !== undefined) await this.#untilFree(storageId)
    const base = request.base && this.#open.get(request.base.storageId)
    // What a sandbox leaves that is about to go is here at once; reading it from the store takes longer.
    if (base?.ends) await this.#whenClosed(base)
    return await prepareRoot(this.#deps, request)
  }

  /** The disk of a prepared workspace was given other contents than those it was prepared with: what is known of them is forgotten. */
  async overwritten(storageId: string) {
    const [top] = this.#deps.copies.get(storageId)?.layers ?? []
    if (top !== undefined) await rm(this.#deps.disks.stateFile(top), { force: true })
  }

  /** Ties a prepared workspace to the sandbox that now has it. */
  async opened(storageId: string, sandbox: SavedSandbox): Promise<OpenWorkspace> {
    const { copies } = this.#deps
    const copy = copies.get(storageId)
    if (copy === undefined) throw new MagsError('internal', `workspace ${storageId} was not made ready`)
    await copies.set({ ...copy, sandboxId: sandbox.id })
    return this.#track(storageId, sandbox)
  }

  /** The workspace of a sandbox that outlived the last daemon. */
  adopted(sandbox: SavedSandbox): OpenWorkspace | undefined {
    const copy = this.#deps.copies.all().find(({ sandboxId, open }) => open && sandboxId === sandbox.id)
    return copy === undefined ? undefined : this.#track(copy.storageId, sandbox)
  }

  versions(storageId: string): Promise<readonly WorkspaceVersion[]> {
    return this.#deps.repository.versions(storageId)
  }

  async fork(from: WorkspaceSource, to: WorkspaceHold): Promise<WorkspaceVersion | undefined> {
    const { repository, copies, locks } = this.#deps
    const source = await repository.manifest(from.storageId, from.version).catch(async (error: unknown) => {
      if (error instanceof MagsError && error.code === 'not_found' && (await repository.versions(from.storageId)).length === 0) return undefined
      throw error
    })
    if (source === undefined) return undefined
    if (to.scope !== undefined && to.scope !== copies.get(from.storageId)?.scope) await checkScope(source.manifest, repository.packs, to.scope)
    const { version } = await repository.commit(await repository.claim(to.storageId, to.fence), source.manifest, { reason: 'fork', uploadedBytes: 0 })
    await locks.run(from.storageId, async () => {
      const copy = copies.get(from.storageId)
      if (copy === undefined || copy.open || copy.version !== source.version.version || copy.writtenBy !== 'host') return
      // Both go on from these layers, so neither may write to them.
      const frozen = await freezeCopy(this.#deps, copy)
      if (frozen === undefined) return
      const { claim: _, scope: __, ...shared } = frozen
      await copies.set({ ...shared, storageId: to.storageId, version: version.version, ...(to.scope === undefined ? {} : { scope: to.scope }) })
    })
    return version
  }

  async restore(hold: WorkspaceHold, wanted: number): Promise<WorkspaceVersion> {
    const { repository } = this.#deps
    await this.#untilFree(hold.storageId)
    const { manifest } = await repository.manifest(hold.storageId, wanted)
    const { version } = await repository.commit(await repository.claim(hold.storageId, hold.fence), manifest, { reason: 'restore', uploadedBytes: 0 })
    await this.#deps.locks.run(hold.storageId, async () => await this.#deps.copies.delete(hold.storageId))
    return version
  }

  async diff(storageId: string, options: { readonly from: number; readonly to: number; readonly content: boolean; readonly limit: number }) {
    const { repository } = this.#deps
    const [from, to] = await Promise.all(
      [options.from, options.to].map(async (version) => {
        if (version === 0) return undefined
        return (await repository.manifest(storageId, version)).manifest
      }),
    )
    const image = from?.image ?? to?.image ?? { name: '', digest: '' }
    // The image itself: nothing of it is changed.
    const nothing = { image, sizeBytes: 0, entryCount: 0, segments: [], packs: [] }
    return await diffTrees(from ?? nothing, to ?? nothing, repository.packs, { content: options.content, limit: options.limit })
  }

  async saveLeft(hold: WorkspaceHold): Promise<WorkspaceSaved | undefined> {
    await this.#untilFree(hold.storageId)
    const copy = this.#deps.copies.get(hold.storageId)
    if (copy === undefined || !copy.open) return undefined
    if (this.#saveLeft === undefined) throw new MagsError('internal', 'the host is not ready yet')
    const { scope } = copy
    return await this.#saveLeft({ ...(scope === undefined ? {} : { scope }), ...hold }, copy.image, copy.diskGb, copy.writtenBy === 'host' ? 'container' : 'vm')
  }

  async left(): Promise<readonly string[]> {
    return this.#deps.copies.all().flatMap(({ storageId, open }) => (open && !this.#open.has(storageId) ? [storageId] : []))
  }

  async remove(storageId: string) {
    await this.#untilFree(storageId)
    await this.#deps.locks.run(storageId, () => this.#deps.copies.delete(storageId))
    await this.#deps.repository.remove(storageId)
  }

  /** After all sandboxes are gone or let go. */
  async close() {
    this.#closed = true
    for (const timer of this.#timers) clearInterval(timer)
    await this.#settleAll().catch((error: unknown) => this.#deps.logger.warn({ err: error }, 'local copies of workspaces could not be written out'))
    await this.#deps.versions.close()
    await this.#deps.disks.close()
  }

  #track(storageId: string, sandbox: SavedSandbox): OpenWorkspace {
    const workspace = new OpenWorkspace(this.#deps, sandbox, storageId)
    this.#open.set(storageId, workspace)
    workspace.closed.then(() => {
      if (this.#open.get(storageId) === workspace) this.#open.delete(storageId)
      this.#flatten(storageId).catch((error: unknown) =>
        this.#deps.logger.warn({ err: error, workspace: storageId }, 'layers of a workspace could not be joined'),
      )
    })
    return workspace
  }

  /** A chain of many layers is slow to read and holds what later ones hide: between two uses it becomes one. */
  async #flatten(storageId: string) {
    const { copies, disks, locks, versions } = this.#deps
    const before = copies.get(storageId)
    if (before === undefined || before.open || before.layers.length < flattenFrom || this.#closed) return
    const layer = await versions.restore(storageId, before.version, { diskGb: before.diskGb, onProgress: () => undefined })
    await locks.run(storageId, async () => {
      const now = copies.get(storageId)
      const unchanged = now !== undefined && !now.open && now.version === before.version && now.layers.join() === before.layers.join()
      if (unchanged) await copies.set({ ...now, layers: [layer], frozen: false, versionUnder: 0, settled: false })
      else await disks.remove(layer)
    })
  }

  /** Waits for a sandbox that is on its way out. */
  async #untilFree(storageId: string) {
    const open = this.#open.get(storageId)
    if (open === undefined) return
    if (!(await this.#whenClosed(open))) throw new MagsError('workspace_in_use', `workspace ${storageId} is in use by a sandbox`)
  }

  /** False when that takes too long. */
  async #whenClosed(open: OpenWorkspace): Promise<boolean> {
    const timeout = new AbortController()
    const closed = await Promise.race([open.closed.then(() => true), delay(leaveWithinMs, false, { signal: timeout.signal })])
    timeout.abort()
    return closed
  }

  /** Copies that rest are written out to the real disk, so that they can be trusted after a power cut. */
  async #settleAll() {
    const { copies, disks, locks } = this.#deps
    for (const { storageId, open, settled } of copies.all()) {
      if (open || settled) continue
      await locks.run(storageId, async () => {
        const copy = copies.get(storageId)
        if (copy === undefined || copy.open || copy.settled) return
        for (const layer of copy.layers) await disks.flush(layer)
        await copies.set({ ...copy, settled: true })
      })
    }
  }

  #every(periodMs: number, failure: string, work: () => Promise<unknown>) {
    const timer = setInterval(() => {
      work().catch((error: unknown) => this.#deps.logger.warn({ err: error }, failure))
    }, periodMs)
    timer.unref()
    this.#timers.push(timer)
  }
}
