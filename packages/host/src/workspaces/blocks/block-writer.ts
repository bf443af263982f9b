import type { Extent } from '../tree/tree-record.ts'
import { blockBytes, blockHeaderBytes, encodeBlock, sha256 } from './block-codec.ts'
import { type BlockTable, digestBytes } from './block-table.ts'
import type { OpenPack, PackWriter } from './pack-writer.ts'
import type { PieceIndex } from './piece-index.ts'

/** Pieces from this size on have a block of their own: then the same bytes are the same block wherever they are found again. */
const ownBlockBytes = 512 * 1024
const parallelBlocks = 6

/** A block that this writer made. */
interface NewBlock {
  readonly rawBytes: number
  readonly digest: Buffer
  readonly pack: OpenPack
  readonly offset: number
  readonly storedBytes: number
}

/** A block that turned out to be stored already. */
interface SameBlock {
  readonly same: number
}

/** Numbers from here on are blocks of this writer, not yet of a table. */
export const newBlocksFrom = 2 ** 31

/**
 * Stores pieces of files: large ones as blocks, small ones joined to blocks in the order they come. Bytes that are stored already are found by their hash and not stored again.
 * At most `parallelBlocks` blocks are compressed at a time, so memory is bounded when the caller awaits `room` between pieces.
 */
export class BlockWriter {
  readonly #packs: PackWriter
  readonly #index: PieceIndex
  readonly #blocks: (NewBlock | SameBlock)[] = []
  #nextBlock = newBlocksFrom
  /** Used over and over: fresh memory costs more than what is done with it. */
  readonly #spare: Buffer[] = []
  #shared: Buffer = Buffer.allocUnsafeSlow(blockBytes)
  #sharedBytes = 0
  #sharedBlock = -1
  readonly #running: Promise<void>[] = []
  #failure: { readonly error: unknown } | undefined

  constructor(packs: PackWriter, index: PieceIndex) {
    this.#packs = packs
    this.#index = index
  }

  /** 1 byte to 1 MiB; the bytes may be used anew once it returns. `digest` are the first bytes of their SHA-256. */
  add(bytes: Buffer): { readonly extent: Extent; readonly digest: Buffer } {
    const whole = sha256(bytes)
    const digest = whole.subarray(0, digestBytes)
    const known = this.#index.find(digest, bytes.length)
    if (known !== undefined) return { extent: known, digest }
    const extent = bytes.length >= ownBlockBytes ? this.#own(bytes, whole) : this.#share(bytes)
    this.#index.add(digest, extent)
    return { extent, digest }
  }

  /** Like `add`, for bytes that are stored already and shall lie elsewhere. */
  addAnew(bytes: Buffer): Extent {
    return bytes.length >= ownBlockBytes ? this.#own(bytes, sha256(bytes)) : this.#share(bytes)
  }

  /** Settles once there is room for more; rejects when something could not be stored. */
  async room(): Promise<void> {
    while (this.#running.length >= parallelBlocks) await this.#running[0]
    if (this.#failure !== undefined) throw this.#failure.error
    await this.#packs.room()
  }

  /** Settles when every block is in a sealed pack, stored or about to be; from then on `settle` knows their places. */
  async seal(): Promise<void> {
    this.#flushShared()
    await Promise.all(this.#running)
    if (this.#failure !== undefined) throw this.#failure.error
    this.#packs.seal()
  }

  /** Enters a block into a table: one of this writer's, or one of `known`. */
  settle(block: number, known: BlockTable, table: BlockTable): number {
    if (block < newBlocksFrom) return table.intern(known.place(block))
    const made = this.#blocks[block - newBlocksFrom]
    if (made !== undefined && 'same' in made) return this.settle(made.same, known, table)
    if (made?.pack.id === undefined) throw new Error('a block was asked for that is not stored')
    const { offset, storedBytes, rawBytes } = made
    return table.intern({ pack: made.pack.id, offset, storedBytes, rawBytes, digest: made.digest.subarray(0, digestBytes) })
  }

  #own(bytes: Buffer, digest: Buffer): Extent {
    const block = this.#nextBlock++
    const raw = this.#buffer().subarray(0, bytes.length)
    raw.set(bytes)
    this.#store(block, raw, digest)
    return { block, position: 0, lengthBytes: bytes.length }
  }

  #share(bytes: Buffer): Extent {
    if (this.#sharedBytes + bytes.length > blockBytes) this.#flushShared()
    if (this.#sharedBlock < 0) this.#sharedBlock = this.#nextBlock++
    const extent = { block: this.#sharedBlock, position: this.#sharedBytes, lengthBytes: bytes.length }
    this.#shared.set(bytes, this.#sharedBytes)
    this.#sharedBytes += bytes.length
    return extent
  }

  #flushShared(): void {
    if (this.#sharedBlock < 0) return
    const raw = this.#shared.subarray(0, this.#sharedBytes)
    const block = this.#sharedBlock
    this.#shared = this.#buffer()
    this.#sharedBytes = 0
    this.#sharedBlock = -1
    const digest = sha256(raw)
    const known = this.#index.find(digest.subarray(0, digestBytes), raw.length)
    // When it has only one piece, that piece is known as itself.
    if (known?.position === 0 && known.block !== block) this.#blocks[block - newBlocksFrom] = { same: known.block }
    else this.#store(block, raw, digest)
  }

  #buffer(): Buffer {
    return this.#spare.pop() ?? Buffer.allocUnsafeSlow(blockBytes)
  }

  /** Compresses now, and appends to the pack after all blocks before it, so that the same files give the same packs. */
  #store(block: number, raw: Buffer, digest: Buffer): void {
    const encoded = encodeBlock(raw, digest)
    // Awaited below; until then a failure must not count as unhandled.
    encoded.catch(() => undefined)
    const before = this.#running.at(-1)
    const running = (async () => {
      await before
      try {
        const parts = await encoded
        const { pack, offset } = this.#packs.append(parts)
        this.#blocks[block - newBlocksFrom] = { rawBytes: raw.length, digest, pack, offset, storedBytes: blockHeaderBytes + parts[1].length }
      } catch (error) {
        this.#failure ??= { error }
      }
      this.#running.shift()
      // Its bytes are copied into the pack.
      this.#spare.push(Buffer.from(raw.buffer, 0, blockBytes))
    })()
    this.#running.push(running)
  }
}
