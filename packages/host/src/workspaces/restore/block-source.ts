import { decodeBlock } from '../blocks/block-codec.ts'
import type { BlockTable } from '../blocks/block-table.ts'
import type { PackId, PackStore } from '../repository/repository.ts'
import { FormatError, must } from '../tree/byte-reader.ts'
import { damaged } from '../tree/damaged.ts'
import { type BlockUses, never } from './block-uses.ts'

const parallelPacks = 4
const decodedAhead = 8

/** Most bytes held: blocks as they are stored, and blocks ready for use. Packs under way come on top, at most `parallelPacks`. */
export interface SourceMemory {
  readonly storedBytes: number
  readonly rawBytes: number
}

/**
 * Gives the blocks of a restore in the order of their uses. Packs are fetched some ahead of that, in parallel, and cut up at once: what is not needed is never held, what is needed goes after its last use.
 * Blocks that are needed late give way when memory runs short; their pack is then fetched again.
 */
export class BlockSource {
  readonly #table: BlockTable
  readonly #uses: BlockUses
  readonly #packs: PackStore
  readonly #memory: SourceMemory
  readonly #abort: AbortSignal
  /** Next use of each block. */
  readonly #nextUse: Uint32Array
  readonly #blocksOf = new Map<PackId, number[]>()
  /** What of a pack is needed at most. */
  readonly #neededBytes = new Map<PackId, number>()
  readonly #stored = new Map<number, Buffer>()
  readonly #raw = new Map<number, Promise<Buffer>>()
  readonly #fetching = new Map<PackId, Promise<void>>()
  #storedBytes = 0
  #expectedBytes = 0
  #rawBytes = 0
  #use = 0
  /** All uses before this one were looked at for fetching ahead. */
  #ahead = 0

  constructor(table: BlockTable, uses: BlockUses, packs: PackStore, memory: SourceMemory, abort: AbortSignal) {
    this.#table = table
    this.#uses = uses
    this.#packs = packs
    this.#memory = memory
    this.#abort = abort
    this.#nextUse = uses.finish(table.count)
    for (let block = 0; block < table.count; block++) {
      if (this.#nextUse[block] === never) continue
      const pack = table.pack(block)
      this.#neededBytes.set(pack, this.#needed(pack) + table.storedBytes(block))
      const blocks = this.#blocksOf.get(pack)
      if (blocks === undefined) this.#blocksOf.set(pack, [block])
      else blocks.push(block)
    }
  }

  /** The block of the use that comes next. */
  async next(): Promise<Buffer> {
    const use = this.#use
    const block = this.#uses.at(use)
    this.#fetchAhead()
    this.#decodeAhead()
    for (;;) {
      const raw = this.#raw.get(block)
      if (raw !== undefined) {
        const bytes = await raw
        this.#leave(use, block)
        return bytes
      }
      if (this.#stored.has(block)) this.#decode(block)
      else await this.#fetch(this.#table.pack(block))
    }
  }

  /** The use is over once the next one is asked for; what is left of its block depends on when it is used again. */
  #leave(use: number, block: number): void {
    this.#use = use + 1
    this.#nextUse[block] = this.#uses.after(use)
    if (this.#nextUse[block] === never) {
      this.#dropStored(block)
      this.#dropRaw(block)
    }
    while (this.#rawBytes > this.#memory.rawBytes) this.#dropRaw(this.#latest(this.#raw.keys()))
  }

  #fetchAhead(): void {
    this.#ahead = Math.max(this.#ahead, this.#use)
    for (; this.#ahead < this.#uses.count && this.#fetching.size < parallelPacks; this.#ahead++) {
      const block = this.#uses.at(this.#ahead)
      const pack = this.#table.pack(block)
      if (this.#stored.has(block) || this.#raw.has(block) || this.#fetching.has(pack)) continue
      if (this.#storedBytes + this.#expectedBytes + this.#needed(pack) > this.#memory.storedBytes) return
      // Whoever needs it finds the failure in `#fetching` or meets it again.
      this.#fetch(pack).catch(() => undefined)
    }
  }

  #needed(pack: PackId): number {
    return this.#neededBytes.get(pack) ?? 0
  }

  #decodeAhead(): void {
    const last = Math.min(this.#use + decodedAhead, this.#uses.count)
    for (let use = this.#use; use < last; use++) {
      const block = this.#uses.at(use)
      if (this.#stored.has(block) && !this.#raw.has(block)) this.#decode(block)
    }
  }

  #decode(block: number): void {
    const stored = this.#stored.get(block)
    if (stored === undefined) return
    const rawBytes = this.#table.rawBytes(block)
    const raw = this.#verified(stored, block, rawBytes)
    raw.catch(() => undefined)
    this.#raw.set(block, raw)
    this.#rawBytes += rawBytes
  }

  async #verified(stored: Buffer, block: number, rawBytes: number): Promise<Buffer> {
    try {
      return await decodeBlock(stored, { rawBytes, digest: this.#table.digest(block) })
    } catch (error) {
      if (!(error instanceof FormatError)) throw error
      throw damaged(`a block of file contents cannot be read because ${error.message}`, this.#table.pack(block), this.#table.offset(block), error)
    }
  }

  #fetch(id: PackId): Promise<void> {
    const running = this.#fetching.get(id)
    if (running !== undefined) return running
    this.#expectedBytes += this.#needed(id)
    const fetching = this.#fetchPack(id).finally(() => {
      this.#expectedBytes -= this.#needed(id)
      this.#fetching.delete(id)
    })
    this.#fetching.set(id, fetching)
    return fetching
  }

  async #fetchPack(id: PackId): Promise<void> {
    const pack = await this.#packs.get(id, this.#abort)
    for (const block of this.#blocksOf.get(id) ?? []) {
      if (this.#nextUse[block] === never || this.#stored.has(block)) continue
      const offset = this.#table.offset(block)
      const end = offset + this.#table.storedBytes(block)
      try {
        must(end <= pack.length, 'it is not inside its pack')
      } catch (error) {
        throw damaged('a block of file contents is missing', id, offset, error)
      }
      // A copy, so that the pack itself can go.
      this.#stored.set(block, Buffer.from(pack.subarray(offset, end)))
      this.#storedBytes += end - offset
    }
    while (this.#storedBytes > this.#memory.storedBytes && this.#stored.size > 1) this.#dropStored(this.#latest(this.#stored.keys()))
    this.#decodeAhead()
  }

  /** The block that is needed last of all. */
  #latest(blocks: Iterable<number>): number {
    let latest = -1
    let latestUse = -1
    for (const block of blocks) {
      const use = this.#nextUse[block] ?? never
      if (use <= latestUse) continue
      latest = block
      latestUse = use
    }
    return latest
  }

  #dropStored(block: number): void {
    const stored = this.#stored.get(block)
    if (stored === undefined) return
    this.#stored.delete(block)
    this.#storedBytes -= stored.length
    if (this.#nextUse[block] !== never) this.#ahead = Math.min(this.#ahead, this.#nextUse[block] ?? 0)
  }

  #dropRaw(block: number): void {
    if (this.#raw.delete(block)) this.#rawBytes -= this.#table.rawBytes(block)
  }
}
