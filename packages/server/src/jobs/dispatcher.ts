import { setTimeout as delay } from 'node:timers/promises'
import { MagsError } from '@mags/protocol'
import type { Job } from './job.ts'
import { JobRun } from './job-run.ts'
import type { JobRunDeps } from './job-run-deps.ts'

export interface DispatcherDeps extends JobRunDeps {
  /** Jobs that may wait at once. */
  readonly maxPendingJobs: number
  /** Hears of every job that is not over, at once; `run.done` says when it is. */
  readonly onTracked?: (job: Job, run: JobRun) => void
}

interface Waiting {
  readonly run: JobRun
  /** Absent for a large one, which is read again from the database. */
  readonly job: Job | undefined
}

/** How many sandboxes are asked for at once; how many there can be is the host's business. */
const maxTaking = 64
const largestKeptJob = 32 * 1024

/**
 * The jobs that are not over, in order of arrival. States: held (until `start`) → dispatching → draining (no new jobs, none is started) → closed.
 */
export class Dispatcher {
  readonly #deps: DispatcherDeps
  readonly #waiting = new Map<string, Waiting>()
  readonly #runs = new Map<string, JobRun>()
  #state: 'held' | 'dispatching' | 'draining' | 'closed' = 'held'
  #reserved = 0
  #taking = 0

  constructor(deps: DispatcherDeps) {
    this.#deps = deps
  }

  /** Room for one more waiting job of an account; the caller gives it back by the returned function. Throws MagsError 'no_capacity'. */
  reserve(_accountId: string): () => void {
    if (this.#state === 'draining' || this.#state === 'closed')
      throw new MagsError('no_capacity', 'the server is shutting down; try again in a moment', { details: { retry_after_seconds: 5 } })
    if (this.pending + this.#reserved >= this.#deps.maxPendingJobs) {
      throw new MagsError('no_capacity', `${this.#deps.maxPendingJobs.toLocaleString('en-US')} jobs are waiting already; try again later`, {
        details: { retry_after_seconds: 2 },
      })
    }
    this.#reserved++
    let given = false
    return () => {
      if (!given) this.#reserved--
      given = true
    }
  }

  /** Takes a stored, pending job. `acceptedAt` is a reading of `performance.now()`. */
  add(job: Job, acceptedAt: number): JobRun {
    const run = this.#track(job, acceptedAt)
    const large = job.script.length + JSON.stringify(job.environment).length > largestKeptJob
    this.#waiting.set(job.requestId, { run, job: large ? undefined : job })
    this.#dispatch()
    return run
  }

  /** A job that is past waiting: it is adopted or failed by the caller. */
  track(job: Job): JobRun {
    return this.#track(job, performance.now())
  }

  find(requestId: string): JobRun | undefined {
    return this.#runs.get(requestId)
  }

  /** The jobs that are not over. */
  get runs(): Iterable<JobRun> {
    return this.#runs.values()
  }

  get pending(): number {
    return this.#waiting.size + this.#taking
  }

  get running(): number {
    return this.#runs.size - this.pending - this.sleeping
  }

  get sleeping(): number {
    let count = 0
    for (const run of this.#runs.values()) if (run.sleep.stage !== undefined) count++
    return count
  }

  start(): void {
    if (this.#state !== 'held') return
    this.#state = 'dispatching'
    this.#dispatch()
  }

  /** Waits for running jobs that are not persistent, at most `graceMs`, then ends them. Waiting ones stay as they are stored. */
  async drain(graceMs: number, reason: string): Promise<void> {
    if (this.#state === 'closed') return
    this.#state = 'draining'
    await Promise.all([...this.#runs.values()].map((run) => (run.waiting ? run.detach() : undefined)))
    const passing = [...this.#runs.values()].filter((run) => !run.persistent)
    const cancel = new AbortController()
    await Promise.race([Promise.all(passing.map((run) => run.done)), delay(graceMs, undefined, { signal: cancel.signal }).catch(() => undefined)])
    cancel.abort()
    await Promise.all(passing.map((run) => (this.#runs.has(run.requestId) ? run.shutDown(reason) : undefined)))
  }

  /** Lets go of what is left: persistent jobs live on for the next process. */
  async close(): Promise<void> {
    this.#state = 'closed'
    await Promise.all([...this.#runs.values()].map((run) => run.detach()))
  }

  #track(job: Job, acceptedAt: number): JobRun {
    const run = new JobRun(this.#deps, job, acceptedAt)
    this.#runs.set(job.requestId, run)
    this.#deps.onTracked?.(job, run)
    void run.done.then(() => {
      this.#waiting.delete(job.requestId)
      this.#runs.delete(job.requestId)
    })
    return run
  }

  #dispatch(): void {
    while (this.#state === 'dispatching' && this.#taking < maxTaking) {
      const [next] = this.#waiting
      if (next === undefined) return
      this.#waiting.delete(next[0])
      this.#taking++
      this.#runOne(next[1]).catch((error: unknown) => this.#deps.logger.error({ err: error, requestId: next[0] }, 'a job could not be run'))
    }
  }

  async #runOne({ run, job: kept }: Waiting): Promise<void> {
    let taken: { job: Job; lease: Awaited<ReturnType<JobRun['take']>> } | undefined
    try {
      const job = kept ?? (await this.#deps.store.get(run.requestId))
      if (job) taken = { job, lease: await run.take(job) }
      else await run.fail('the job is not in the database any more')
    } catch (error) {
      await run.fail(error instanceof Error ? error.message : String(error))
    } finally {
      this.#taking--
      this.#dispatch()
    }
    if (taken?.lease) await run.execute(taken.job, taken.lease)
  }
}
