import type { GatewayTarget } from '@mags/protocol'
import type { JobUser, OpenJob } from './open-job.ts'
import type { OpenJobs } from './open-jobs.ts'

/**
 * What a raw connection means for its job: awake while bytes pass, asleep when it is open and nothing happens (a forgotten tab with a WebSocket). The connection itself lives on in the frozen sandbox.
 *
 * held -> quiet (no byte for `quietMs`) -> held with the next byte … -> closed.
 */
export class TunnelUse implements JobUser {
  readonly #jobs: OpenJobs
  readonly #target: GatewayTarget
  readonly #quietMs: number
  readonly #onGone: () => void
  readonly #first: OpenJob
  #held: OpenJob | undefined
  #lastMs = Date.now()
  #timer: NodeJS.Timeout

  /** Takes over from `before`, which held the job until now. */
  constructor(jobs: OpenJobs, job: OpenJob, before: JobUser, target: GatewayTarget, quietMs: number, onGone: () => void) {
    this.#jobs = jobs
    this.#target = { ...target, state: 'running' }
    this.#quietMs = quietMs
    this.#onGone = onGone
    this.#first = job
    this.#held = job
    job.watch(this)
    job.hold(this)
    job.release(before)
    this.#timer = this.#arm(quietMs)
  }

  /** A byte came. A promise when the job may sleep: settles once it is awake, rejects with why it cannot be. */
  pass(): Promise<unknown> | undefined {
    this.#lastMs = Date.now()
    if (this.#held !== undefined) return this.#held.lease === undefined ? this.#held.opened : undefined
    const job = this.#jobs.hold(this.#target, this)
    this.#held = job
    this.#timer = this.#arm(this.#quietMs)
    return job.lease === undefined ? job.opened : undefined
  }

  jobGone(): void {
    this.#onGone()
  }

  close(): void {
    clearTimeout(this.#timer)
    this.#first.unwatch(this)
    this.#held?.release(this)
    this.#held = undefined
  }

  #arm(afterMs: number): NodeJS.Timeout {
    const timer = setTimeout(() => this.#look(), afterMs)
    timer.unref()
    return timer
  }

  #look(): void {
    const leftMs = this.#lastMs + this.#quietMs - Date.now()
    if (leftMs > 0) {
      this.#timer = this.#arm(leftMs)
      return
    }
    this.#held?.release(this)
    this.#held = undefined
  }
}
