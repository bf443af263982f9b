import { hole, type TreeRecord } from '../tree/tree-record.ts'

export const never = 0xffff_ffff

/** In which order a restore needs blocks: one number for each run of neighbours in the same block. */
export class BlockUses {
  #uses = new Uint32Array(1_024)
  #next = new Uint32Array(0)
  #count = 0

  get count(): number {
    return this.#count
  }

  add({ extents }: Pick<TreeRecord, 'extents'>): void {
    for (const { block } of extents) {
      if (block === hole || (this.#count > 0 && this.#uses[this.#count - 1] === block)) continue
      if (this.#count === this.#uses.length) {
        const wider = new Uint32Array(this.#count * 2)
        wider.set(this.#uses)
        this.#uses = wider
      }
      this.#uses[this.#count++] = block
    }
  }

  /** All are added. Gives the first use of each block, `never` without one. */
  finish(blockCount: number): Uint32Array {
    const first = new Uint32Array(blockCount).fill(never)
    this.#next = new Uint32Array(this.#count)
    for (let use = this.#count - 1; use >= 0; use--) {
      const block = this.at(use)
      this.#next[use] = first[block] ?? never
      first[block] = use
    }
    return first
  }

  at(use: number): number {
    return this.#uses[use] ?? 0
  }

  /** The use after this one of the same block, or `never`. */
  after(use: number): number {
    return this.#next[use] ?? never
  }
}
