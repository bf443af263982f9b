import { mkdir, open, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Logger } from 'pino'
import { readRecord, writeRecord } from '../../recover/record-file.ts'
import type { LayerDisks } from './layer-disks.ts'
import type { WorkingCopy } from './working-copy.ts'

const ending = '.json'
const storageIdPattern = /^[0-9a-f]{32}$/

/** The working copies of this machine: one small file each, all of them in memory, and which layers sandboxes use right now. */
export class WorkingCopies {
  readonly bootId: string
  readonly #dir: string
  readonly #disks: LayerDisks
  readonly #copies = new Map<string, WorkingCopy>()
  /** Layers in use by sandboxes, with how many. */
  readonly #pins = new Map<string, number>()

  private constructor(dir: string, disks: LayerDisks, bootId: string) {
    this.#dir = dir
    this.#disks = disks
    this.bootId = bootId
  }

  /** Reads what earlier daemons left. Copies that cannot be trusted any more are forgotten: their newest version is in the object store. */
  static async open(dir: string, disks: LayerDisks, logger: Pick<Logger, 'warn'>): Promise<WorkingCopies> {
    await mkdir(dir, { recursive: true, mode: 0o700 })
    const bootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
    const copies = new WorkingCopies(dir, disks, bootId)
    for (const name of await readdir(dir)) {
      const copy = await readRecord<WorkingCopy>(join(dir, name))
      if (copy === undefined || `${copy.storageId}${ending}` !== name || !storageIdPattern.test(copy.storageId)) continue
      const fault = await copies.#faultOf(copy)
      if (fault === undefined) copies.#copies.set(copy.storageId, copy)
      else {
        logger.warn({ workspace: copy.storageId, version: copy.version, lost: copy.open, fault }, 'the local copy of a workspace is not used any more')
        await rm(join(dir, name), { force: true })
      }
    }
    await disks.retain(copies.#layersOfCopies())
    return copies
  }

  get(storageId: string): WorkingCopy | undefined {
    return this.#copies.get(storageId)
  }

  all(): readonly WorkingCopy[] {
    return [...this.#copies.values()]
  }

  /** Stores a copy; it is on disk once settled. Layers that no copy has any more are removed. */
  async set(copy: WorkingCopy) {
    const before = this.#copies.get(copy.storageId)
    await writeRecord(this.#file(copy.storageId), copy)
    // A power cut must not bring back a record that calls the disk whole while it was written to.
    if (before?.settled && !copy.settled) await this.#flush(copy.storageId)
    this.#copies.set(copy.storageId, copy)
    if (before !== undefined) await this.#removeUnused(before.layers)
  }

  async delete(storageId: string) {
    const copy = this.#copies.get(storageId)
    this.#copies.delete(storageId)
    await rm(this.#file(storageId), { force: true })
    if (copy !== undefined) await this.#removeUnused(copy.layers)
  }

  /** Keeps these layers until the function returned is called. */
  pin(layers: readonly string[]): () => Promise<void> {
    for (const layer of layers) this.#pins.set(layer, (this.#pins.get(layer) ?? 0) + 1)
    let pinned = true
    return async () => {
      if (!pinned) return
      pinned = false
      for (const layer of layers) {
        const users = (this.#pins.get(layer) ?? 1) - 1
        if (users > 0) this.#pins.set(layer, users)
        else this.#pins.delete(layer)
      }
      await this.#removeUnused(layers)
    }
  }

  /** Whether anything but this workspace's copy has the layer. */
  isShared(layer: string, storageId: string): boolean {
    if (this.#pins.has(layer)) return true
    return this.all().some((copy) => copy.storageId !== storageId && copy.layers.includes(layer))
  }

  async #removeUnused(layers: readonly string[]) {
    const used = this.#layersOfCopies()
    for (const layer of layers) if (!used.has(layer) && !this.#pins.has(layer)) await this.#disks.remove(layer)
  }

  #layersOfCopies() {
    return new Set(this.all().flatMap(({ layers }) => layers))
  }

  async #faultOf(copy: WorkingCopy): Promise<string | undefined> {
    for (const layer of copy.layers) if (!(await this.#disks.exists(layer))) return `its layer ${layer} is missing`
    if (copy.bootId === this.bootId || copy.settled) return undefined
    return 'the machine was started anew before it had reached the disk'
  }

  async #flush(storageId: string) {
    for (const path of [this.#file(storageId), this.#dir]) {
      await using handle = await open(path, 'r')
      await handle.sync()
    }
  }

  #file(storageId: string) {
    if (!storageIdPattern.test(storageId)) throw new Error(`${JSON.stringify(storageId)} is no storage id`)
    return join(this.#dir, `${storageId}${ending}`)
  }
}
