import { randomBytes } from 'node:crypto'
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { makeScratchDisk } from '../../drivers/scratch-disk.ts'
import { run } from '../../run.ts'

const idPattern = /^[0-9a-f]{16}$/
const diskEnding = '.img'
const stateEnding = '.state'

/**
 * The disks on which layers of workspaces lie: sparse ext4 images in one folder, each with what was known of its tree when it was last saved. One blank disk of the usual size is kept in stock, because
 * making one takes 10 to 20 ms.
 */
export class LayerDisks {
  readonly #dir: string
  readonly #spareGb: number
  #spare: Promise<string> | undefined

  private constructor(dir: string, spareGb: number) {
    this.#dir = dir
    this.#spareGb = spareGb
  }

  static async open(dir: string, spareGb: number): Promise<LayerDisks> {
    await mkdir(dir, { recursive: true, mode: 0o700 })
    const disks = new LayerDisks(dir, spareGb)
    disks.stock()
    return disks
  }

  /** The disk's file. Ids come from records, which a person may have touched. */
  file(layerId: string): string {
    if (!idPattern.test(layerId)) throw new Error(`${JSON.stringify(layerId)} is no layer id`)
    return join(this.#dir, `${layerId}${diskEnding}`)
  }

  stateFile(layerId: string): string {
    return this.file(layerId).slice(0, -diskEnding.length) + stateEnding
  }

  /** Begins to make the blank disk in stock, unless there is one. */
  stock() {
    this.#spare ??= this.#make(this.#spareGb)
    this.#spare.catch(() => {
      this.#spare = undefined
    })
  }

  /** A blank disk. */
  async create(diskGb: number): Promise<string> {
    const spare = diskGb === this.#spareGb ? this.#spare : undefined
    if (spare === undefined) return await this.#make(diskGb)
    this.#spare = undefined
    return await spare
  }

  /** A disk with the same contents, which must not be written meanwhile: shares blocks where the file system can, else copies what is not a hole. */
  async copy(layerId: string): Promise<string> {
    const copyId = newLayerId()
    const part = `${this.file(copyId)}.part`
    try {
      await run('cp', ['--reflink=auto', '--sparse=always', this.file(layerId), part], { timeoutMs: 600_000 })
      await rename(part, this.file(copyId))
    } catch (error) {
      await rm(part, { force: true })
      throw error
    }
    return copyId
  }

  async exists(layerId: string): Promise<boolean> {
    return (await stat(this.file(layerId)).catch(() => undefined)) !== undefined
  }

  /** Has what was written reach the real disk, so that it survives a power cut. */
  async flush(layerId: string) {
    await using file = await open(this.file(layerId), 'r')
    await file.sync()
  }

  async remove(layerId: string) {
    await Promise.all([rm(this.file(layerId), { force: true }), rm(this.stateFile(layerId), { force: true })])
  }

  /** Removes every disk that is not among these, and what was left half made. */
  async retain(layerIds: ReadonlySet<string>) {
    const spare = await this.#spare?.catch(() => undefined)
    for (const name of await readdir(this.#dir)) {
      const id = name.replace(/\..*$/, '')
      const whole = name === `${id}${diskEnding}` || name === `${id}${stateEnding}`
      if (!whole || (!layerIds.has(id) && id !== spare)) await rm(join(this.#dir, name), { force: true })
    }
  }

  /** Removes the disk in stock. */
  async close() {
    const spare = await this.#spare?.catch(() => undefined)
    this.#spare = undefined
    if (spare !== undefined) await this.remove(spare)
  }

  async #make(diskGb: number): Promise<string> {
    const layerId = newLayerId()
    await makeScratchDisk(this.file(layerId), diskGb)
    return layerId
  }
}

const newLayerId = () => randomBytes(8).toString('hex')
