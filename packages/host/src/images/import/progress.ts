const everyMs = 1000

/** Words about a long step, at most once a second. */
export class Progress {
  readonly #say: (words: string) => void
  #last = performance.now()

  constructor(say: (words: string) => void) {
    this.#say = say
  }

  /** A step begins. */
  step(words: string) {
    this.#last = performance.now()
    this.#say(words)
  }

  /** It goes on; `words` is only asked when it is time. */
  tick(words: () => string) {
    if (performance.now() - this.#last < everyMs) return
    this.step(words())
  }
}

export function megabytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(bytes < 10 * 2 ** 20 ? 1 : 0)} MB`
}
