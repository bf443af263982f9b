import { constants } from 'node:os'
import type { RunningProgram } from '@mags/protocol'

/** What was under way when the client stopped reading, and the last words of a program that was told, are dropped without another signal. */
const patienceMs = 250
const { SIGPIPE, SIGHUP, SIGTERM } = constants.signals

/**
 * Output that the client no longer reads, as a pipe without a reader: `read` → `unread`, where all standard output is dropped → `deaf` once its input has ended, too: OpenSSH's client then takes nothing any more, not even
 * standard error, and the channel ends with the program. The pipe itself cannot be closed from here, so whoever still writes to standard output is told by signals to its process group, one at a time: SIGPIPE; then, because
 * many runtimes (Python, Go, Node) ignore that one, what they do not.
 */
export class UnreadOutput {
  readonly #signals = [SIGPIPE, SIGHUP, SIGTERM]
  readonly #leftBehind = Promise.withResolvers<void>()
  readonly #deaf = new AbortController()
  /** Since when there was no reader, or the last signal. */
  #patientSince: number | undefined
  #inputEnded = false
  #exited = false

  /** The client reads no more standard output. */
  begin(): void {
    this.#patientSince ??= performance.now()
    if (this.#inputEnded) this.#deaf.abort()
  }

  /** The client writes no more. */
  endInput(): void {
    this.#inputEnded = true
    if (this.#patientSince !== undefined) this.#deaf.abort()
  }

  /** Nothing reaches the client any more but the exit. */
  get deaf(): AbortSignal {
    return this.#deaf.signal
  }

  /** Asked with every piece of standard output: whether it is to be dropped. */
  drops(program: Pick<RunningProgram, 'signal'> | undefined): boolean {
    if (this.#patientSince === undefined) return false
    if (this.#exited) this.#leftBehind.resolve()
    if (performance.now() - this.#patientSince < patienceMs) return true
    this.#patientSince = performance.now()
    const signal = this.#exited ? undefined : this.#signals.shift()
    if (signal !== undefined) program?.signal(signal)
    return true
  }

  /** To be called at the exit of the program's first process. Settles when something it left behind still writes here for nobody. */
  exited(): Promise<void> {
    this.#exited = true
    return this.#leftBehind.promise
  }
}
