import { setTimeout as delay } from 'node:timers/promises'
import { storageFaultOf } from './storage-fault.ts'

export interface RoomWaitOptions {
  /** Ends all waiting. */
  readonly giveUp?: AbortSignal | undefined
  /** Hears why it has to wait, once until it goes on. */
  readonly onFull?: ((words: string, error: unknown) => void) | undefined
  /** The first wait, which doubles, and the longest, ms. Default 250 and 5,000. */
  readonly firstWaitMs?: number
  readonly longestWaitMs?: number
}

/**
 * Does what writes to the disk under the server's data, again and again while that is full.
 *
 *     writes ──the disk is full──▶ stuck ──there is room──▶ writes
 */
export class RoomWait {
  readonly #options: RoomWaitOptions
  /** Ends of the waits that go on. */
  readonly #waits = new Set<() => void>()
  #givenUp = false
  #words: string | undefined
  #sticking = Promise.withResolvers<void>()

  constructor(options: RoomWaitOptions = {}) {
    this.#options = options
  }

  /** Ends all waiting: from now on a full disk is a fault like any other. */
  giveUp(): void {
    this.#givenUp = true
    for (const end of this.#waits) end()
  }

  /** Why it is stuck, and what to do. */
  get words(): string | undefined {
    return this.#words
  }

  /** Settles when it is stuck. */
  get sticking(): Promise<void> {
    return this.#sticking.promise
  }

  /** Rejects with whatever else goes wrong, and with why it is full once nobody waits any more, or after `abort`. */
  async run<T>(work: () => Promise<T>, abort?: AbortSignal): Promise<T> {
    const { giveUp, onFull, firstWaitMs = 250, longestWaitMs = 5000 } = this.#options
    for (let waitMs = firstWaitMs; ; waitMs = Math.min(2 * waitMs, longestWaitMs)) {
      try {
        const result = await work()
        this.#goOn()
        return result
      } catch (error) {
        const words = storageFaultOf(error)
        if (words === undefined || this.#givenUp || giveUp?.aborted || abort?.aborted) throw error
        if (this.#words === undefined) onFull?.(words, error)
        this.#words = words
        this.#sticking.resolve()
        await this.#pause(waitMs, [giveUp, abort])
      }
    }
  }

  /** What it takes is made for those who wait only: nearly all writes succeed at once. */
  async #pause(ms: number, ends: readonly (AbortSignal | undefined)[]) {
    const over = new AbortController()
    const end = () => over.abort()
    for (const signal of ends) signal?.addEventListener('abort', end, { once: true, signal: over.signal })
    this.#waits.add(end)
    await delay(ms, undefined, { ref: false, signal: over.signal }).catch(() => undefined)
    this.#waits.delete(end)
    end()
  }

  #goOn() {
    if (this.#words === undefined) return
    this.#words = undefined
    this.#sticking = Promise.withResolvers()
  }
}
