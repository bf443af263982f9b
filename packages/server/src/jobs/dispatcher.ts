import { availableParallelism } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { MagsError } from '@mags/protocol'
import type { Job, JobHead } from './job.ts'
import { JobRun } from './job-run.ts'
import type { JobRunDeps } from './job-run-deps.ts'
import { AccountShares } from './queue/account-shares.ts'
import { holdForJob, workspaceKey, workspaceToGet } from './queue/hold-for-job.ts'
import { type WaitingJob, WaitingJobs } from './queue/waiting-jobs.ts'

export interface DispatcherDeps extends JobRunDeps {
  /** Jobs that may wait at once. */
  readonly maxPendingJobs: number
  /** The same of one account; 0: no bound of its own. */
  readonly maxPendingJobsPerAccount?: number
  /** Jobs of one account that may have a sandbox that is awake; the others wait. 0: no bound. */
  readonly maxRunningJobsPerAccount?: number
  /** For how many jobs of one account a sandbox is asked for at once, while nobody else waits; default twice the processors, 8 at least. */
  readonly maxTakingPerAccount?: number
  /** Hears of every job that is not over, at once, and again when it has got its workspace or is tried again; `run.done` says when it is over. */
  readonly onTracked?: (job: JobHead, run: JobRun) => void
}

const largestKeptJob = 32 * 1024
const accountRetrySeconds = 5

/**
 * The jobs that are not over. Which of those that wait is next is for {@link WaitingJobs}, how many of an account may go on for {@link AccountShares}.
 *
 * States: held (until `start`) → dispatching → draining (no new jobs, none is started) → closed.
 */
export class Dispatcher {
  readonly #deps: DispatcherDeps
  readonly #waiting: WaitingJobs
  readonly #shares: AccountShares
  readonly #runs = new Map<string, JobRun>()
  /** Those that are being given a sandbox. */
  readonly #handed = new Set<string>()
  #state: 'held' | 'dispatching' | 'draining' | 'closed' = 'held'
  readonly #reserved = new Map<string, number>()

  constructor(deps: DispatcherDeps) {
    // What every run tells us, on top of what it needs.
    this.#deps = {
      ...deps,
      onRetry: (job, before) => this.#tryAgain(job, before),
      onAsleep: () => this.#dispatch(),
      onWake: (accountId) => this.requireRoom(accountId, 1),
    }
    this.#waiting = new WaitingJobs({ clock: deps.clock, timers: deps.saving.timers, onReady: () => this.#dispatch() })
    this.#shares = new AccountShares({
      maxTaking: deps.maxTakingPerAccount ?? Math.max(8, 2 * availableParallelism()),
      maxRunning: deps.maxRunningJobsPerAccount ?? 0,
    })
  }

  /** Room for one more waiting job of an account; the caller gives it back by the returned function. Throws MagsError 'no_capacity', 'rate_limited'. */
  reserve(accountId: string): () => void {
    if (this.#state === 'draining' || this.#state === 'closed')
      throw new MagsError('no_capacity', 'the server is shutting down; try again in a moment', { details: { retry_after_seconds: 5 } })
    const { maxPendingJobs, maxPendingJobsPerAccount: mostOfAccount = 0 } = this.#deps
    const reserved = this.#reserved.get(accountId) ?? 0
    if (mostOfAccount > 0 && this.#waiting.sizeOf(accountId) + this.#shares.takingOf(accountId) + reserved >= mostOfAccount) {
      throw new MagsError('rate_limited', `${countOf(mostOfAccount)} waiting already for this account; try again in a moment`, {
        details: { retry_after_seconds: accountRetrySeconds },
      })
    }
    const allReserved = [...this.#reserved.values()].reduce((sum, count) => sum + count, 0)
    if (this.pending + allReserved >= maxPendingJobs)
      throw new MagsError('no_capacity', `${maxPendingJobs.toLocaleString('en-US')} jobs are waiting already; try again later`, {
        details: { retry_after_seconds: 2 },
      })
    this.#reserved.set(accountId, reserved + 1)
    let given = false
    return () => {
      if (given) return
      given = true
      const left = (this.#reserved.get(accountId) ?? 1) - 1
      if (left > 0) this.#reserved.set(accountId, left)
      else this.#reserved.delete(accountId)
    }
  }

  /**
   * For what begins without waiting for its turn: a copy, a wake. `more`: how many there will be, beyond those that are tracked. Throws MagsError 'rate_limited' when an account would have more awake than it may.
   */
  requireRoom(accountId: string, more: number): void {
    if (this.#shares.hasRoom(accountId, more)) return
    const most = this.#deps.maxRunningJobsPerAccount ?? 0
    throw new MagsError('rate_limited', `this account has as many jobs awake as it may (${most}); stop one, put one to sleep, or try again later`, {
      details: { retry_after_seconds: accountRetrySeconds },
    })
  }

  /** Takes a stored, pending job. `acceptedAt` is a reading of `performance.now()`. */
  add(job: Job, acceptedAt: number): JobRun {
    const run = this.#track(job, this.#readyAt(job, acceptedAt))
    const large = job.script.length + JSON.stringify(job.environment).length > largestKeptJob
    this.#wait(job, run, large ? undefined : job)
    return run
  }

  /** The same for one whose script is only read when its turn comes. */
  requeue(job: JobHead, acceptedAt: number): JobRun {
    const run = this.#track(job, this.#readyAt(job, acceptedAt))
    this.#wait(job, run, undefined)
    return run
  }

  /** A job that is past waiting: it is adopted or failed by the caller. */
  track(job: JobHead): JobRun {
    const run = this.#track(job, performance.now())
    this.#shares.begin(run)
    return run
  }

  /** The run of a job that is not over; of one that is tried again the newest. */
  find(requestId: string): JobRun | undefined {
    return this.#runs.get(requestId)
  }

  /** The jobs that are not over. */
  get runs(): Iterable<JobRun> {
    return this.#runs.values()
  }

  get pending(): number {
    return this.#waiting.size + this.#handed.size
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
    this.#waiting.close()
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
    this.#waiting.close()
    await Promise.all([...this.#runs.values()].map((run) => run.detach()))
  }

  get #takesNew(): boolean {
    return this.#state === 'held' || this.#state === 'dispatching'
  }

  /** What a job waits for its time is no part of its queueing. */
  #readyAt({ notBefore }: JobHead, acceptedAt: number): number {
    return notBefore === null ? acceptedAt : Math.max(acceptedAt, performance.now() + Date.parse(notBefore) - this.#deps.clock())
  }

  #track(job: JobHead, acceptedAt: number): JobRun {
    const run = new JobRun(this.#deps, job, acceptedAt)
    this.#runs.set(job.requestId, run)
    this.#deps.onTracked?.(job, run)
    void run.done.then(() => {
      const last = this.#runs.get(job.requestId)
      this.#waiting.remove(job.requestId)
      this.#runs.delete(job.requestId)
      if (last) this.#leave(job, last)
    })
    return run
  }

  /** The try `before` is over; the job is not. */
  #tryAgain(job: Job, before: JobRun): JobRun {
    const run = new JobRun(this.#deps, job, this.#readyAt(job, performance.now()), before)
    this.#runs.set(job.requestId, run)
    this.#leave(job, before)
    this.#deps.onTracked?.(job, run)
    // Its row says all that the next process needs.
    if (this.#takesNew) this.#wait(job, run, undefined)
    else void run.detach()
    return run
  }

  /** A run is over: others may go on in its place, and have its workspace. */
  #leave({ accountId, workspaceId }: JobHead, run: JobRun): void {
    this.#shares.end(run)
    if (workspaceId !== null) this.#waiting.freed(workspaceKey(accountId, workspaceId))
    this.#dispatch()
  }

  #wait(head: JobHead, run: JobRun, job: Job | undefined): void {
    const { requestId, accountId, priority, notBefore } = head
    const notBeforeMs = notBefore === null ? undefined : Date.parse(notBefore)
    this.#waiting.add({ requestId, accountId, priority, run, job, notBeforeMs, workspace: workspaceToGet(head), hasSaidSo: false })
    this.#dispatch()
  }

  #dispatch(): void {
    while (this.#state === 'dispatching') {
      const mayHaveTurn = this.#shares.chooser(this.#waiting.readyAccounts)
      const next = mayHaveTurn && this.#waiting.take(mayHaveTurn)
      if (next === undefined) return
      this.#handed.add(next.requestId)
      this.#shares.begin(next.run)
      this.#runOne(next).catch((error: unknown) => this.#deps.logger.error({ err: error, requestId: next.requestId }, 'a job could not be run'))
    }
  }

  async #runOne(waiting: WaitingJob): Promise<void> {
    const { run } = waiting
    let taken: { job: Job; lease: Awaited<ReturnType<JobRun['take']>> } | undefined
    const endTake = this.#shares.take(run)
    try {
      const job = await this.#prepare(waiting)
      if (job === undefined) return
      // That may take long, and the account's other jobs need not wait for it.
      if (run.waitsForTurn) {
        endTake()
        this.#dispatch()
        // What goes wrong there, `take` says.
        await run.enter().catch(() => undefined)
      }
      taken = { job, lease: await run.take(job) }
    } catch (error) {
      await run.fail(error instanceof Error ? error.message : String(error))
    } finally {
      endTake()
      this.#handed.delete(run.requestId)
      this.#dispatch()
    }
    if (taken?.lease) await run.execute(taken.job, taken.lease)
  }

  /** The whole job, with its workspace; undefined when it waits again or is over. */
  async #prepare(waiting: WaitingJob): Promise<Job | undefined> {
    const { store, host, clock, saving } = this.#deps
    const { run } = waiting
    const job = waiting.job ?? (await store.get(run.requestId))
    if (job === undefined) {
      this.#waiting.leaveLine(waiting)
      await run.fail('the job is not in the database any more')
      return undefined
    }
    if (waiting.workspace === undefined) return job
    try {
      const got = await run.trouble.store(() => holdForJob({ store, host, clock, workspaces: saving.workspaces }, job))
      if ('job' in got) {
        this.#waiting.leaveLine(waiting)
        run.hold(got.job)
        this.#deps.onTracked?.(got.job, run)
        return got.job
      }
      if (run.waiting && !run.isOver && this.#state === 'dispatching') {
        this.#shares.end(run)
        this.#handed.delete(run.requestId)
        this.#waiting.block(waiting, got.holder)
      } else this.#waiting.leaveLine(waiting)
      return undefined
    } catch (error) {
      this.#waiting.leaveLine(waiting)
      throw error
    }
  }
}

const countOf = (count: number) => (count === 1 ? '1 job is' : `${count.toLocaleString('en-US')} jobs are`)
