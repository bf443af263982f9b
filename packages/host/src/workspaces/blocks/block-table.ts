import type { PackId } from '../repository/repository.ts'
import { must } from '../tree/byte-reader.ts'

/** Bytes of a block's SHA-256 that a tree names, and that tell contents apart. */
export const digestBytes = 16

/** Where a block lies. `storedBytes` with its header. */
export interface BlockPlace {
  readonly pack: PackId
  readonly offset: number
  readonly storedBytes: number
  readonly rawBytes: number
  /** First bytes of its SHA-256. */
  readonly digest: Buffer
}

/** Numbers for blocks, and where they lie; compact, because there may be many. */
export class BlockTable {
  #count = 0
  #packOf = new Uint32Array(64)
  #offset = new Uint32Array(64)
  #stored = new Uint32Array(64)
  #raw = new Uint32Array(64)
  #digests = Buffer.alloc(64 * digestBytes)
  readonly #packs: PackId[] = []
  readonly #packNumbers = new Map<PackId, number>()
  readonly #numbers = new Map<number, number>()

  get count(): number {
    return this.#count
  }

  /** Number of the block there; a new one when it is not known. Throws FormatError when it is known as another block. */
  intern(place: BlockPlace): number {
    const pack = this.#packNumber(place.pack)
    const key = pack * 2 ** 32 + place.offset
    const known = this.#numbers.get(key)
    if (known !== undefined) {
      must(this.#raw[known] === place.rawBytes && this.#stored[known] === place.storedBytes, 'two different blocks are said to be in one place')
      must(this.digest(known).equals(place.digest), 'two different blocks are said to be in one place')
      return known
    }
    const block = this.#count++
    if (block === this.#raw.length) this.#grow()
    this.#packOf[block] = pack
    this.#offset[block] = place.offset
    this.#stored[block] = place.storedBytes
    this.#raw[block] = place.rawBytes
    this.#digests.set(place.digest, block * digestBytes)
    this.#numbers.set(key, block)
    return block
  }

  rawBytes(block: number): number {
    return this.#raw[block] ?? 0
  }

  storedBytes(block: number): number {
    return this.#stored[block] ?? 0
  }

  offset(block: number): number {
    return this.#offset[block] ?? 0
  }

  pack(block: number): PackId {
    return this.#packs[this.#packOf[block] ?? 0] ?? ''
  }

  /** A view. */
  digest(block: number): Buffer {
    return this.#digests.subarray(block * digestBytes, (block + 1) * digestBytes)
  }

  place(block: number): BlockPlace {
    return {
      pack: this.pack(block),
      offset: this.offset(block),
      storedBytes: this.storedBytes(block),
      rawBytes: this.rawBytes(block),
      digest: this.digest(block),
    }
  }

  #packNumber(id: PackId): number {
    const known = this.#packNumbers.get(id)
    if (known !== undefined) return known
    this.#packNumbers.set(id, this.#packs.length)
    return this.#packs.push(id) - 1
  }

  #grow(): void {
    const wider = (old: Uint32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> => {
      const grown = new Uint32Array(old.length * 2)
      grown.set(old)
      return grown
    }
    this.#packOf = wider(this.#packOf)
    this.#offset = wider(this.#offset)
    this.#stored = wider(this.#stored)
    this.#raw = wider(this.#raw)
    this.#digests = Buffer.concat([this.#digests, Buffer.alloc(this.#digests.length)])
  }
}
