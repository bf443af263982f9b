/**
 * One sandbox's time on a slot, from the slot's making or `renew` to the next `renew`.
 *
 *     current ──rest──▶ resting ──rest(false)──▶ current
 *        └─────────────────┴── renew asked for, slot removed ──▶ ended
 *
 * While it rests nothing is sent and nothing refused, so nothing has to be read.
 * What is asked under an ended use never reaches the sandbox that comes after it.
 */
export class SlotUse {
  readonly link: string
  readonly address: string
  /** All numbers its connections have had. */
  readonly generations: Set<number>
  /** The last reading; stays right after the end when it was read before. */
  sentBytes = 0
  #ended = false
  #resting = false
  /** Somebody has read its counter since it rests. */
  isCounted = false
  readonly #total = Promise.withResolvers<number>()

  constructor(link: string, address: string, generations: readonly number[]) {
    this.link = link
    this.address = address
    this.generations = new Set(generations)
  }

  get ended() {
    return this.#ended
  }

  get resting() {
    return this.#resting
  }

  rest(asleep: boolean) {
    this.#resting = asleep
    this.isCounted = false
  }

  /** All it has sent; settles once it has ended and was counted for the last time. */
  get totalBytes(): Promise<number> {
    return this.#total.promise
  }

  end() {
    this.#ended = true
  }

  /** After its end: the last reading, if there was one. */
  close(bytes?: number) {
    this.#ended = true
    this.#total.resolve(Math.max(this.sentBytes, bytes ?? 0))
  }
}
