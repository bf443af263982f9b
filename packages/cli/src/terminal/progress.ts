import type { Output } from './output.ts'

const patienceMs = 1_000
const everyMs = 200

/**
 * One line on the terminal that says how far something is, rewritten in place: from a second on, and only where somebody watches. Dispose it
 * to take the line away.
 */
export class Progress implements Disposable {
  readonly #output: Output
  readonly #watched: boolean
  readonly #clock: () => number
  #nextMs: number
  #shown = false

  constructor(output: Output, clock: () => number = () => performance.now()) {
    this.#output = output
    this.#clock = clock
    this.#nextMs = clock() + patienceMs
    this.#watched = output.stderrIsTerminal && !output.json
  }

  /** `words` is only called when they are shown. */
  update(words: () => string): void {
    const nowMs = this.#clock()
    if (!this.#watched || nowMs < this.#nextMs) return
    this.#nextMs = nowMs + everyMs
    this.#shown = true
    void this.#output.err(`\r\u001b[2K${words()}`)
  }

  [Symbol.dispose](): void {
    if (this.#shown) void this.#output.err('\r\u001b[2K')
    this.#shown = false
  }
}
