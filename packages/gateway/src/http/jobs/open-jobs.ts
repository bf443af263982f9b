import type { GatewayTarget } from '@mags/protocol'
import { type JobUser, OpenJob, type OpenJobDeps } from './open-job.ts'

/** Jobs that have requests now or had one a moment ago, by request id. */
export class OpenJobs {
  readonly #deps: OpenJobDeps
  readonly #jobs = new Map<string, OpenJob>()
  readonly #sweep: NodeJS.Timeout

  constructor(deps: OpenJobDeps) {
    this.#deps = deps
    this.#sweep = setInterval(() => this.#sweepIdle(), 1000)
    this.#sweep.unref()
  }

  /** The open job, or a new one that is being opened; held by the caller until it calls `release`. One that somebody put to sleep meanwhile is opened anew. */
  hold(target: GatewayTarget, user: JobUser): OpenJob {
    let job = this.#jobs.get(target.requestId)
    if (job?.lease !== undefined && target.state === 'sleeping') {
      job.retire()
      job = undefined
    }
    if (job === undefined || job.isClosed) {
      job = this.#add(target.requestId)
    }
    job.hold(user)
    return job
  }

  close(): void {
    clearInterval(this.#sweep)
    for (const job of [...this.#jobs.values()]) job.close()
  }

  #add(requestId: string): OpenJob {
    const job: OpenJob = new OpenJob(this.#deps, requestId, () => {
      if (this.#jobs.get(requestId) === job) this.#jobs.delete(requestId)
    })
    this.#jobs.set(requestId, job)
    return job
  }

  #sweepIdle(): void {
    const now = Date.now()
    for (const job of this.#jobs.values()) job.idle.sweep(now)
  }
}
