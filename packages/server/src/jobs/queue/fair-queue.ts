/** Something that waits for its account's turn. */
export interface Queued {
  readonly requestId: string
  readonly accountId: string
  /** Higher ones of the account go first. */
  readonly priority: number
}

/** By priority; those of one in the order of their arrival. */
type Lane<T> = Map<number, Map<string, T>>

/**
 * One lane per account, served round robin; within a lane by priority, then by arrival. An account with nothing in it costs nothing.
 */
export class FairQueue<T extends Queued> {
  /** Whose turn is next comes first. */
  readonly #lanes = new Map<string, Lane<T>>()
  #size = 0

  add(item: T): void {
    const lane = this.#lanes.get(item.accountId) ?? new Map<number, Map<string, T>>()
    this.#lanes.set(item.accountId, lane)
    const bucket = lane.get(item.priority) ?? new Map<string, T>()
    lane.set(item.priority, bucket)
    if (!bucket.has(item.requestId)) this.#size++
    bucket.set(item.requestId, item)
  }

  /** The next one, of the first account that may have a turn; the account is last in line then. */
  take(mayHaveTurn: (accountId: string) => boolean): T | undefined {
    for (const [accountId, lane] of this.#lanes) {
      if (!mayHaveTurn(accountId)) continue
      const [first] = lane.get(Math.max(...lane.keys()))?.values() ?? []
      if (first === undefined) continue
      this.#lanes.delete(accountId)
      this.#lanes.set(accountId, lane)
      this.remove(first)
      return first
    }
    return undefined
  }

  /** False when it is not there. */
  remove({ requestId, accountId, priority }: Queued): boolean {
    const lane = this.#lanes.get(accountId)
    const bucket = lane?.get(priority)
    if (lane === undefined || bucket === undefined || !bucket.delete(requestId)) return false
    this.#size--
    if (bucket.size === 0) lane.delete(priority)
    if (lane.size === 0) this.#lanes.delete(accountId)
    return true
  }

  get size(): number {
    return this.#size
  }

  /** Those that have something in it. */
  get accounts(): Iterable<string> {
    return this.#lanes.keys()
  }
}
