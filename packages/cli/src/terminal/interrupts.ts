import { constants } from 'node:os'

type InterruptSignal = 'SIGINT' | 'SIGTERM' | 'SIGHUP'

/** The user, or the system, asked us to end. */
export class Interrupted extends Error {
  /** 128 + the signal's number: 130 for Ctrl-C. */
  readonly exitCode: number

  constructor(signal: InterruptSignal) {
    super(`interrupted by ${signal}`)
    this.name = 'Interrupted'
    this.exitCode = 128 + constants.signals[signal]
  }
}

/**
 * Ctrl-C and its kin. States: idle (the system's default ends us) → listening (from `listen`) → requested (first signal: `requested` is
 * aborted, with an {@link Interrupted} as its reason, and the command winds up) → gone (second signal: ends at once).
 */
export class Interrupts {
  readonly #controller = new AbortController()
  #listening = false

  get requested(): AbortSignal {
    return this.#controller.signal
  }

  listen(): void {
    if (this.#listening) return
    this.#listening = true
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(signal, () => {
        const interrupted = new Interrupted(signal)
        if (this.#controller.signal.aborted) process.exit(interrupted.exitCode)
        this.#controller.abort(interrupted)
      })
    }
  }
}
