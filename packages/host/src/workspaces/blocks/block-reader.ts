import type { PackId, PackStore } from '../repository/repository.ts'
import { FormatError, must } from '../tree/byte-reader.ts'
import { damaged } from '../tree/damaged.ts'
import { decodeBlock } from './block-codec.ts'
import type { BlockTable } from './block-table.ts'

/** The raw bytes of a block from its pack, verified. Rejects with MagsError('workspace_damaged') naming pack and offset. */
export async function blockOf(pack: Buffer, table: BlockTable, block: number): Promise<Buffer> {
  const { offset, storedBytes } = table.place(block)
  try {
    must(offset + storedBytes <= pack.length, 'it is not inside its pack')
    return await decodeBlock(pack.subarray(offset, offset + storedBytes), { rawBytes: table.rawBytes(block), digest: table.digest(block) })
  } catch (error) {
    throw error instanceof FormatError ? damaged(`a block of file contents cannot be read because ${error.message}`, table.pack(block), offset, error) : error
  }
}

/** How many packs and blocks to hold. */
export interface HeldCounts {
  readonly packs: number
  readonly blocks: number
}

/** Reads single blocks, here and there; holds the packs and blocks used last. */
export class BlockReader {
  readonly #table: BlockTable
  readonly #packs: PackStore
  readonly #abort: AbortSignal | undefined
  readonly #held: HeldCounts
  readonly #heldPacks = new Map<PackId, Buffer>()
  readonly #heldBlocks = new Map<number, Buffer>()

  constructor(table: BlockTable, packs: PackStore, abort?: AbortSignal, held: HeldCounts = { packs: 6, blocks: 16 }) {
    this.#held = held
    this.#table = table
    this.#packs = packs
    this.#abort = abort
  }

  async read(block: number): Promise<Buffer> {
    const id = this.#table.pack(block)
    return hold(this.#heldBlocks, block, this.#held.blocks, async () => {
      const pack = await hold(this.#heldPacks, id, this.#held.packs, () => this.#packs.get(id, this.#abort))
      return blockOf(pack, this.#table, block)
    })
  }
}

/** From the map, or made and put into it; the one used longest ago goes. */
async function hold<K, V>(held: Map<K, V>, key: K, most: number, make: () => Promise<V>): Promise<V> {
  const value = held.get(key) ?? (await make())
  held.delete(key)
  held.set(key, value)
  for (const oldest of held.keys()) {
    if (held.size <= most) break
    held.delete(oldest)
  }
  return value
}
