import type { Timers } from '../../workspaces/timers.ts'

export interface DelayedJobsDeps<T> {
  /** Wall clock, ms since 1970. */
  readonly clock: () => number
  readonly timers: Pick<Timers, 'wait'>
  readonly onDue: (item: T) => void
}

/** The longest wait: a wall clock that was set is seen within it. */
const longestWaitMs = 60_000

/**
 * What is not to begin before its time. One timer, for what is due first.
 *
 *     idle ──add──► waiting (timer for the earliest) ──due──► waiting or idle      any ──close──► closed
 */
export class DelayedJobs<T> {
  readonly #deps: DelayedJobsDeps<T>
  /** When each is due, ms since 1970. */
  readonly #dueAt = new Map<T, number>()
  #earliestMs = Number.POSITIVE_INFINITY
  #timer: AbortController | undefined
  #closed = false

  constructor(deps: DelayedJobsDeps<T>) {
    this.#deps = deps
  }

  add(item: T, dueAtMs: number): void {
    this.#dueAt.set(item, dueAtMs)
    if (dueAtMs < this.#earliestMs) this.#arm()
  }

  /** False when it is not there. */
  remove(item: T): boolean {
    return this.#dueAt.delete(item)
  }

  get size(): number {
    return this.#dueAt.size
  }

  close(): void {
    this.#closed = true
    this.#timer?.abort()
    this.#dueAt.clear()
  }

  #arm(): void {
    this.#timer?.abort()
    this.#timer = undefined
    this.#earliestMs = Number.POSITIVE_INFINITY
    for (const dueAtMs of this.#dueAt.values()) this.#earliestMs = Math.min(this.#earliestMs, dueAtMs)
    if (this.#closed || this.#dueAt.size === 0) return
    const timer = new AbortController()
    this.#timer = timer
    const waitMs = Math.min(longestWaitMs, Math.max(0, this.#earliestMs - this.#deps.clock()))
    this.#deps.timers.wait(waitMs, timer.signal).then(
      () => this.#release(),
      () => undefined,
    )
  }

  #release(): void {
    if (this.#closed) return
    const now = this.#deps.clock()
    const due = [...this.#dueAt].filter(([, dueAtMs]) => dueAtMs <= now).sort(([, a], [, b]) => a - b)
    for (const [item] of due) this.#dueAt.delete(item)
    this.#arm()
    for (const [item] of due) this.#deps.onDue(item)
  }
}
