import { blockBytes } from '../blocks/block-codec.ts'
import type { BlockWriter } from '../blocks/block-writer.ts'
import { type Extent, hole } from '../tree/tree-record.ts'

/** Shorter holes are stored as zeros, which cost next to nothing, so that a file does not fall into countless parts. */
const shortestHole = 64 * 1024

/** What was read of a file. */
export interface FileContents {
  readonly sizeBytes: number
  readonly extents: readonly Extent[]
  readonly digests: Buffer
}

/** Cuts files into pieces at every MiB and at holes, and hands the pieces to a block writer. */
export class FilePieces {
  readonly #blocks: BlockWriter
  readonly #piece = Buffer.allocUnsafe(blockBytes)
  #filled = 0
  #sizeBytes = 0
  #extents: Extent[] = []
  #digests: Buffer[] = []

  constructor(blocks: BlockWriter) {
    this.#blocks = blocks
  }

  get extentCount(): number {
    return this.#extents.length
  }

  data(bytes: Buffer): void {
    let rest = bytes
    while (rest.length > 0) {
      const room = blockBytes - (this.#sizeBytes % blockBytes)
      const part = rest.subarray(0, room)
      rest = rest.subarray(part.length)
      this.#sizeBytes += part.length
      // A whole piece needs no copy.
      if (this.#filled === 0 && part.length === room) this.#add(part)
      else {
        this.#piece.set(part, this.#filled)
        this.#filled += part.length
        if (part.length === room) this.#flush()
      }
    }
  }

  hole(lengthBytes: number): void {
    if (lengthBytes < shortestHole) {
      this.data(Buffer.alloc(lengthBytes))
      return
    }
    this.#flush()
    this.#sizeBytes += lengthBytes
    const last = this.#extents.at(-1)
    if (last?.block === hole) this.#extents[this.#extents.length - 1] = { ...last, lengthBytes: last.lengthBytes + lengthBytes }
    else this.#extents.push({ block: hole, position: 0, lengthBytes })
  }

  /** The file is whole; the next one begins. */
  end(): FileContents {
    this.#flush()
    const contents = { sizeBytes: this.#sizeBytes, extents: this.#extents, digests: Buffer.concat(this.#digests) }
    this.drop()
    return contents
  }

  /** Forgets what was read of this file. */
  drop(): void {
    this.#filled = 0
    this.#sizeBytes = 0
    this.#extents = []
    this.#digests = []
  }

  #flush(): void {
    if (this.#filled > 0) this.#add(this.#piece.subarray(0, this.#filled))
    this.#filled = 0
  }

  #add(bytes: Buffer): void {
    const { extent, digest } = this.#blocks.add(bytes)
    this.#extents.push(extent)
    this.#digests.push(digest)
  }
}
