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
  readonly #givingUp = new AbortController()
  readonly #giveUp: AbortSignal
  #words: string | undefined
  #sticking = Promise.withResolvers<void>()

  constructor(options: RoomWaitOptions = {}) {
    this.#options = options
    this.#giveUp = options.giveUp === undefined ? this.#givingUp.signal : AbortSignal.any([options.giveUp, this.#givingUp.signal])
  }

  /** Ends all waiting: from now on a full disk is a fault like any other. */
  giveUp(): void {
    this.#givingUp.abort()
  }

  /** Why it is stuck, and what to do. */
  get words(): string | undefined {
    return this.#words
  }

  /** Settles when it is stuck. */
  get sticking(): Promise<void> {
    return this.#sticking.promise
  }

  /** Rejects with whatever else goes wrong, and with why it is full once nobody waits any more. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    const { onFull, firstWaitMs = 250, longestWaitMs = 5000 } = this.#options
    for (let waitMs = firstWaitMs; ; waitMs = Math.min(2 * waitMs, longestWaitMs)) {
      try {
        const result = await work()
        this.#goOn()
        return result
      } catch (error) {
        const words = storageFaultOf(error)
        if (words === undefined || this.#giveUp.aborted) throw error
        if (this.#words === undefined) onFull?.(words, error)
        this.#words = words
        this.#sticking.resolve()
        await delay(waitMs, undefined, { ref: false, signal: this.#giveUp }).catch(() => undefined)
      }
    }
  }

  #goOn() {
    if (this.#words === undefined) return
    this.#words = undefined
    this.#sticking = Promise.withResolvers()
  }
}
