import { setImmediate as immediately } from 'node:timers/promises'
import { type BlobOperation, MemoryBlobStore } from '../../blobs/testing/memory-blob-store.ts'

/**
 * One machine's view of a shared store that goes on only when told so: every operation waits for `step`. So a test decides who is fast, who is paused, and where.
 *
 *     running ──next operation──▶ waiting ──step──▶ running … ──work settled──▶ finished
 */
export class SteppedActor {
  readonly store: MemoryBlobStore
  readonly #waiting: (() => void)[] = []
  #changed: (() => void) | undefined
  finished = false

  constructor(objects: MemoryBlobStore['objects'], now: () => number) {
    this.store = new MemoryBlobStore({ objects, now })
    this.store.before = () =>
      new Promise((resolve) => {
        this.#waiting.push(resolve)
        this.#changed?.()
      })
  }

  /** The answer to the operation after the next `count` is lost. */
  loseAnswer(count: number, error: () => Error, matches: (operation: BlobOperation) => boolean): void {
    let left = count
    this.store.after = (operation) => {
      if (matches(operation) && left-- === 0) throw error()
    }
  }

  /** Runs until its first operation. */
  async start(work: () => Promise<void>): Promise<void> {
    void work().finally(() => {
      this.finished = true
      this.#changed?.()
    })
    await this.#settled()
  }

  /** Lets the operation it waits for happen, and runs until the next. False when there is none. */
  async step(): Promise<boolean> {
    const go = this.#waiting.shift()
    if (!go) return false
    go()
    // What it asked for at once with this one is still waiting: give it a moment to go on, no more can be said.
    await immediately()
    await this.#settled()
    return true
  }

  #settled(): Promise<void> {
    if (this.#waiting.length > 0 || this.finished) return Promise.resolve()
    return new Promise((resolve) => {
      this.#changed = () => {
        this.#changed = undefined
        resolve()
      }
    })
  }
}
