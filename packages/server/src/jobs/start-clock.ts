import type { JobTimings } from './job.ts'

const steps = ['queueMs', 'acquireMs', 'attachMs', 'firstByteMs'] as const
type Step = (typeof steps)[number]

/**
 * Measures the start of a job with one monotonic clock: each step begins where the one before ended, so the steps add up to the whole.
 * All times are readings of `performance.now()`.
 */
export class StartClock {
  readonly #acceptedAt: number
  #lastAt: number
  #scriptStartedAt: number | undefined
  readonly #spent: Partial<Record<Step, number>> = {}
  #scriptMs: number | null = null

  constructor(acceptedAt: number) {
    this.#acceptedAt = acceptedAt
    this.#lastAt = acceptedAt
  }

  /** The step ended; the first call counts. */
  end(step: Step, at = performance.now()): void {
    if (this.#spent[step] !== undefined) return
    const end = Math.max(at, this.#lastAt)
    // Rounded as distances from one origin, so that the sum of the rounded steps is the rounded whole.
    this.#spent[step] = round(this.#sinceAccepted(end) - this.#sinceAccepted(this.#lastAt))
    this.#lastAt = end
    if (step === 'attachMs') this.#scriptStartedAt = end
  }

  endScript(at = performance.now()): void {
    if (this.#scriptStartedAt !== undefined) this.#scriptMs ??= round(Math.max(0, at - this.#scriptStartedAt))
  }

  get timings(): JobTimings {
    const { queueMs = null, acquireMs = null, attachMs = null, firstByteMs = null } = this.#spent
    return { queueMs, acquireMs, attachMs, firstByteMs, startMs: firstByteMs === null ? null : this.#sinceAccepted(this.#lastAt), scriptMs: this.#scriptMs }
  }

  #sinceAccepted(at: number): number {
    return round(at - this.#acceptedAt)
  }
}

const round = (value: number) => Math.round(value * 1000) / 1000
