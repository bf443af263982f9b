const keptMs = 2000
const mostKept = 2000

/** Names that meant nothing a moment ago, so that whoever asks for them again and again costs no SQL. Bounded: the oldest goes. */
export class Misses {
  readonly #now: () => number
  readonly #until = new Map<string, number>()

  constructor(now: () => number) {
    this.#now = now
  }

  has(name: string): boolean {
    const until = this.#until.get(name)
    if (until === undefined) return false
    if (until > this.#now()) return true
    this.#until.delete(name)
    return false
  }

  add(name: string): void {
    this.#until.delete(name)
    if (this.#until.size >= mostKept) this.#until.delete(this.#until.keys().next().value ?? '')
    this.#until.set(name, this.#now() + keptMs)
  }
}
