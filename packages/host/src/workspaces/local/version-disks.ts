import { MagsError } from '@mags/protocol'
import type { LayerSession } from '../../layers/layer-session.ts'
import type { Manifest, WorkspaceRepository } from '../repository/repository.ts'
import type { KeyedLock } from './keyed-lock.ts'
import type { LayerDisks } from './layer-disks.ts'
import type { WorkingCopies } from './working-copies.ts'

export interface VersionDisksDeps {
  readonly repository: WorkspaceRepository
  readonly disks: LayerDisks
  readonly copies: WorkingCopies
  readonly locks: KeyedLock
  /** Mounts a blank disk and hands its layer over. */
  readonly fill: <T>(name: string, file: string, work: (layer: LayerSession) => Promise<T>) => Promise<T>
  /** Reads a version into an empty layer, and stores what it then knows of the tree in `stateFile`. */
  readonly restore: (layer: LayerSession, manifest: Manifest, options: RestoreOptions & { readonly stateFile: string }) => Promise<void>
}

export interface RestoreOptions {
  readonly diskGb: number
  readonly onProgress: (words: string) => void
  readonly abort?: AbortSignal
}

/** So many disks of versions nobody uses are kept. */
const kept = 4

/**
 * Disks that hold exactly one version, read from the object store: for bases whose working copy is in use, or that this machine does not have. They are not found again by the next daemon.
 *
 *     (none) ──use──▶ being read ──▶ in use ──released by the last──▶ idle ──used least of all──▶ (none)
 */
export class VersionDisks {
  readonly #deps: VersionDisksDeps
  /** Least recently used first; the pin keeps the disk. */
  readonly #known = new Map<string, { layer: string; unpin: () => Promise<void>; users: number }>()

  constructor(deps: VersionDisksDeps) {
    this.#deps = deps
  }

  /** Layers to read from; several may use them at once. */
  async use(storageId: string, version: number, options: RestoreOptions): Promise<{ layers: readonly string[]; release: () => Promise<void> }> {
    const key = `${storageId}@${version}`
    return await this.#deps.locks.run(key, async () => {
      const entry = this.#known.get(key) ?? (await this.#read(storageId, version, options))
      this.#known.delete(key)
      this.#known.set(key, entry)
      entry.users++
      let released = false
      const release = async () => {
        if (released) return
        released = true
        entry.users--
        await this.#forgetOldest()
      }
      return { layers: [entry.layer], release }
    })
  }

  /** A disk of one's own with that version. */
  async restore(storageId: string, version: number, options: RestoreOptions): Promise<string> {
    const { repository, disks } = this.#deps
    const { manifest } = await repository.manifest(storageId, version)
    const layer = await disks.create(options.diskGb)
    const stateFile = disks.stateFile(layer)
    try {
      await this.#deps.fill(layer, disks.file(layer), (session) => this.#deps.restore(session, manifest, { ...options, stateFile }))
      return layer
    } catch (error) {
      await disks.remove(layer)
      if (!(error instanceof Error) || !/ENOSPC|errno 28\b/.test(error.message)) throw error
      throw new MagsError('bad_request', `disk_gb: version ${version} of the workspace does not fit on a disk of ${options.diskGb} GB; ask for a larger one`, {
        cause: error,
      })
    }
  }

  /** Lets go of all that nobody uses. */
  async close() {
    for (const [key, entry] of this.#known) {
      this.#known.delete(key)
      await entry.unpin()
    }
  }

  async #read(storageId: string, version: number, options: RestoreOptions) {
    const layer = await this.restore(storageId, version, options)
    return { layer, unpin: this.#deps.copies.pin([layer]), users: 0 }
  }

  async #forgetOldest() {
    const idle = [...this.#known].filter(([, { users }]) => users === 0)
    for (const [key, entry] of idle.slice(0, Math.max(0, idle.length - kept))) {
      this.#known.delete(key)
      await entry.unpin()
    }
  }
}
