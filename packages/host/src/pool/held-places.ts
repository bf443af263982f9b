/** How many sandboxes each share has that are awake, or being made for it. Those of nobody known, which an earlier daemon started, are of the share ''. */
export class HeldPlaces {
  readonly #held = new Map<string, number>()
  #total = 0

  get total(): number {
    return this.#total
  }

  add(share: string): void {
    this.#held.set(share, this.of(share) + 1)
    this.#total++
  }

  remove(share: string): void {
    const left = this.of(share) - 1
    if (left > 0) this.#held.set(share, left)
    else this.#held.delete(share)
    this.#total--
  }

  of(share: string): number {
    return this.#held.get(share) ?? 0
  }

  /** Shares that have one at least, as far as it is known whose they are. */
  get shares(): number {
    return this.#held.size - (this.#held.has('') ? 1 : 0)
  }
}
