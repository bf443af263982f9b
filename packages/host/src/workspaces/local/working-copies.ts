import { mkdir, open, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from 'pino'
import { readRecord, writeRecord } from '../../recover/record-file.ts'
import type { LayerDisks } from './layer-disks.ts'
import type { WorkingCopy } from './working-copy.ts'

const ending = '.json'
const retryMs = 2_000
const storageIdPattern = /^[0-9a-f]{32}$/

/** The working copies of this machine: one small file each, all of them in memory, and which layers sandboxes use right now. */
export class WorkingCopies {
  readonly bootId: string
  readonly #dir: string
  readonly #disks: LayerDisks
  readonly #copies = new Map<string, WorkingCopy>()
  /** Layers in use by sandboxes, with how many. */
  readonly #pins = new Map<string, number>()
  readonly #logger: Pick<Logger, 'warn'>

  private constructor(dir: string, disks: LayerDisks, bootId: string, logger: Pick<Logger, 'warn'>) {
    this.#dir = dir
    this.#logger = logger
    this.#disks = disks
    this.bootId = bootId
  }

  /** Reads what earlier daemons left. Copies that cannot be trusted any more are forgotten: their newest version is in the object store. */
  static async open(dir: string, disks: LayerDisks, logger: Pick<Logger, 'warn'>): Promise<WorkingCopies> {
    await mkdir(dir, { recursive: true, mode: 0o700 })
    const bootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
    const copies = new WorkingCopies(dir, disks, bootId, logger)
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

  /**
   * As `set`, or as `delete` without a copy, at the end of a sandbox, which cannot be put off: in force at once, and on disk as soon as there is room. Settles after the first attempt; never rejects.
   */
  async conclude(storageId: string, copy: WorkingCopy | undefined): Promise<void> {
    const before = this.#copies.get(storageId)
    if (copy === undefined) this.#copies.delete(storageId)
    else this.#copies.set(storageId, copy)
    const write = async () => {
      if (copy === undefined) await rm(this.#file(storageId), { force: true })
      else await writeRecord(this.#file(storageId), copy)
      if (before !== undefined) await this.#removeUnused(before.layers)
    }
    await write().catch((error: unknown) => {
      this.#logger.warn({ err: error, workspace: storageId }, 'what a sandbox left of a workspace could not be noted; this is tried until it works')
      void this.#insist(storageId, copy, write)
    })
  }

  async #insist(storageId: string, copy: WorkingCopy | undefined, write: () => Promise<void>) {
    // Unless another sandbox has it by then.
    while (this.#copies.get(storageId) === copy) {
      await delay(retryMs, undefined, { ref: false })
      if (this.#copies.get(storageId) !== copy) return
      const isDone = await write().then(
        () => true,
        () => false,
      )
      if (isDone) return
    }
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
    for (const layer of layers) {
      if (used.has(layer) || this.#pins.has(layer)) continue
      // The next start removes what nobody knows.
      await this.#disks.remove(layer).catch((error: unknown) => this.#logger.warn({ err: error, layer }, 'the disk of a layer could not be removed'))
    }
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
