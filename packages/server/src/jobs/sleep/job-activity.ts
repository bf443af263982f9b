/** What keeps a job awake: uses that are open, and when the last one ended. Times are readings of one monotonic clock. */
export class JobActivity {
  readonly #now: () => number
  #open = 0
  #onUnused: (() => void)[] = []
  #lastAt: number

  constructor(now: () => number) {
    this.#now = now
    this.#lastAt = now()
  }

  /** Connections, commands and transfers under way. */
  get open(): number {
    return this.#open
  }

  /** Settles once nothing uses it. */
  unused(): Promise<void> {
    if (this.#open === 0) return Promise.resolve()
    return new Promise((resolve) => this.#onUnused.push(resolve))
  }

  /** How long nothing has used it. */
  get idleMs(): number {
    return this.#open > 0 ? 0 : this.#now() - this.#lastAt
  }

  /** Something uses it until the returned function is called, which may be called more than once. */
  begin(): () => void {
    this.#open++
    let ended = false
    return () => {
      if (ended) return
      ended = true
      this.#open--
      this.touch()
      if (this.#open === 0) for (const resolve of this.#onUnused.splice(0)) resolve()
    }
  }

  /** Something used it just now. */
  touch(): void {
    this.#lastAt = this.#now()
  }
}
