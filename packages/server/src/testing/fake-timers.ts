import type { Timers } from '../workspaces/timers.ts'

interface Wait {
  readonly ms: number
  readonly end: () => void
}

/** Waits that end when a test says so; chance is always one half. */
export class FakeTimers implements Timers {
  readonly #waits = new Set<Wait>()
  #now = 0

  /** How long each wait is that has not ended, shortest first. */
  get pending(): number[] {
    return [...this.#waits].map(({ ms }) => ms).sort((a, b) => a - b)
  }

  /** Ends every wait of exactly this length; how many there were. */
  end(ms: number): number {
    const ended = [...this.#waits].filter((wait) => wait.ms === ms)
    for (const wait of ended) wait.end()
    return ended.length
  }

  wait(ms: number, abort?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (abort?.aborted) return reject(abort.reason)
      const wait = { ms, end: () => finish(resolve) }
      const finish = (settle: () => void) => {
        this.#waits.delete(wait)
        abort?.removeEventListener('abort', onAbort)
        settle()
      }
      const onAbort = () => finish(() => reject(abort?.reason))
      abort?.addEventListener('abort', onAbort, { once: true })
      this.#waits.add(wait)
    })
  }

  now(): number {
    return this.#now
  }

  /** Lets time pass; waits end by `end` only. */
  pass(ms: number): void {
    this.#now += ms
  }

  random(): number {
    return 0.5
  }
}
