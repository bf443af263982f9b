/**
 * The signal of one request: aborts with the caller's reason when the caller's signal does, and with `onTimeout()` after `timeoutMs`
 * without a `touch`. Dispose it when the request is over; it then neither fires nor keeps the process alive.
 */
export class Deadline implements Disposable {
  readonly #controller = new AbortController()
  readonly #caller: AbortSignal | undefined
  readonly #timer: NodeJS.Timeout
  readonly #forward = () => this.#controller.abort(this.#caller?.reason)

  constructor(caller: AbortSignal | undefined, timeoutMs: number, onTimeout: () => Error) {
    caller?.throwIfAborted()
    this.#caller = caller
    caller?.addEventListener('abort', this.#forward, { once: true })
    this.#timer = setTimeout(() => this.#controller.abort(onTimeout()), timeoutMs)
  }

  /** Why the content of the request could not be read to its end: a fault of the caller's side, not of the connection. */
  contentFailure: unknown

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  /** Something moved: the time starts anew. */
  touch(): void {
    this.#timer.refresh()
  }

  /** No time limit from here on; the caller's signal still counts. */
  stopClock(): void {
    clearTimeout(this.#timer)
  }

  abort(reason: Error): void {
    this.#controller.abort(reason)
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
    this.#caller?.removeEventListener('abort', this.#forward)
  }
}
