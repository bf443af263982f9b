/** One after the other for each key, in order of arrival. */
export class Turns {
  readonly #last = new Map<string, Promise<void>>()

  /** Whether somebody has the turn, or waits for it. */
  isTaken(key: string): boolean {
    return this.#last.has(key)
  }

  /** Waits for the turn; the returned function ends it and may be called more than once. Rejects with the reason of `abort` when aborted while waiting. */
  async take(key: string, abort?: AbortSignal): Promise<() => void> {
    abort?.throwIfAborted()
    const before = this.#last.get(key)
    const { promise, resolve } = Promise.withResolvers<void>()
    const mine = before === undefined ? promise : before.then(() => promise)
    this.#last.set(key, mine)
    void mine.then(() => {
      if (this.#last.get(key) === mine) this.#last.delete(key)
    })
    if (before === undefined) return resolve
    const aborted = Promise.withResolvers<never>()
    const onAbort = () => aborted.reject(abort?.reason)
    abort?.addEventListener('abort', onAbort, { once: true })
    try {
      await Promise.race([before, aborted.promise])
      return resolve
    } catch (error) {
      resolve()
      throw error
    } finally {
      abort?.removeEventListener('abort', onAbort)
    }
  }
}
