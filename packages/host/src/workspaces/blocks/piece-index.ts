import type { Extent } from '../tree/tree-record.ts'
import { digestBytes } from './block-table.ts'

/**
 * Finds bytes that are stored already: the beginning of a SHA-256 and a length give the place. Open addressing in flat arrays, because there is one entry for each file.
 */
export class PieceIndex {
  #capacity = 1_024
  #used = 0
  #digests = Buffer.alloc(this.#capacity * digestBytes)
  #block = new Uint32Array(this.#capacity)
  #position = new Uint32Array(this.#capacity)
  /** 0: a free place. */
  #length = new Uint32Array(this.#capacity)

  find(digest: Buffer, lengthBytes: number): Extent | undefined {
    const at = this.#place(digest, lengthBytes)
    if (this.#length[at] === 0) return undefined
    return { block: this.#block[at] ?? 0, position: this.#position[at] ?? 0, lengthBytes }
  }

  /** The first of several places with the same bytes stays. */
  add(digest: Buffer, { block, position, lengthBytes }: Extent): void {
    if (this.#used * 2 >= this.#capacity) this.#grow()
    const at = this.#place(digest, lengthBytes)
    if (this.#length[at] !== 0) return
    this.#used++
    this.#digests.set(digest.subarray(0, digestBytes), at * digestBytes)
    this.#block[at] = block
    this.#position[at] = position
    this.#length[at] = lengthBytes
  }

  #place(digest: Buffer, lengthBytes: number): number {
    const mask = this.#capacity - 1
    let at = digest.readUInt32LE(0) & mask
    while (this.#length[at] !== 0 && !(this.#length[at] === lengthBytes && this.#isAt(at, digest))) at = (at + 1) & mask
    return at
  }

  #isAt(at: number, digest: Buffer): boolean {
    return this.#digests.compare(digest, 0, digestBytes, at * digestBytes, (at + 1) * digestBytes) === 0
  }

  #grow(): void {
    const old = { capacity: this.#capacity, digests: this.#digests, block: this.#block, position: this.#position, length: this.#length }
    this.#capacity *= 2
    this.#used = 0
    this.#digests = Buffer.alloc(this.#capacity * digestBytes)
    this.#block = new Uint32Array(this.#capacity)
    this.#position = new Uint32Array(this.#capacity)
    this.#length = new Uint32Array(this.#capacity)
    for (let at = 0; at < old.capacity; at++) {
      const lengthBytes = old.length[at] ?? 0
      if (lengthBytes === 0) continue
      const digest = old.digests.subarray(at * digestBytes, (at + 1) * digestBytes)
      this.add(digest, { block: old.block[at] ?? 0, position: old.position[at] ?? 0, lengthBytes })
    }
  }
}
