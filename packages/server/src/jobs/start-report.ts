import type { JobTimings } from './job.ts'
import { StartClock } from './start-clock.ts'

/** Measures the start of one job and has it stored when there is something new that will not be stored soon by itself. */
export class StartReport {
  readonly #clock: StartClock
  readonly #store: (timings: JobTimings) => void
  #outputSeen = false

  /** `acceptedAt` is a reading of `performance.now()`; `store` is called for a job whose end may be far away. */
  constructor(acceptedAt: number, store: (timings: JobTimings) => void) {
    this.#clock = new StartClock(acceptedAt)
    this.#store = store
  }

  get timings(): JobTimings {
    return this.#clock.timings
  }

  /** The job was handed to the host. */
  dequeued(): void {
    this.#clock.end('queueMs')
  }

  acquired(): void {
    this.#clock.end('acquireMs')
  }

  /** The script was handed over. */
  attached(): void {
    this.#clock.end('attachMs')
    if (this.#outputSeen) this.#clock.end('firstByteMs')
    this.#store(this.timings)
  }

  /** Output is in the log. */
  firstOutput(): void {
    this.#outputSeen = true
    // Output may be here before the call that started the script has returned: then the step before is not over yet.
    if (this.timings.attachMs === null) return
    this.#clock.end('firstByteMs')
    this.#store(this.timings)
  }

  scriptEnded(): void {
    this.#clock.endScript()
    this.#clock.end('firstByteMs')
  }
}
