import type { Timers } from '../../workspaces/timers.ts'
import type { Job } from '../job.ts'
import type { JobRun } from '../job-run.ts'
import { DelayedJobs } from './delayed-jobs.ts'
import { FairQueue, type Queued } from './fair-queue.ts'
import { WorkspaceLines } from './workspace-lines.ts'

/** A job that waits for a sandbox. */
export interface WaitingJob extends Queued {
  readonly run: JobRun
  /** Absent for a large one, which is read again from the database. */
  readonly job: Job | undefined
  /** ms since 1970. */
  readonly notBeforeMs: number | undefined
  /** The workspace that it has yet to get, and its name. */
  readonly workspace: { readonly key: string; readonly name: string } | undefined
  /** Its log says that it waits for its workspace. */
  hasSaidSo: boolean
}

export interface WaitingJobsDeps {
  readonly clock: () => number
  readonly timers: Pick<Timers, 'wait'>
  /** One became ready by itself. */
  readonly onReady: () => void
}

/** Other servers may share the database: what they give back is seen within this. */
const lookAgainMs = 3000

/**
 * The jobs that wait.
 *
 *     delayed (not before its time) ──► in line for its workspace, unless it is the first ──► ready ──take──► taken
 *                                                     ▲                                                        │
 *                                                     └──────── block (another job has the workspace) ─────────┘
 *
 * Only what is ready has turns, so what waits for anything else keeps nobody from theirs.
 */
export class WaitingJobs {
  readonly #deps: WaitingJobsDeps
  readonly #ready = new FairQueue<WaitingJob>()
  readonly #delayed: DelayedJobs<WaitingJob>
  readonly #lines = new WorkspaceLines<WaitingJob>()
  readonly #all = new Map<string, WaitingJob>()
  readonly #counts = new Map<string, number>()
  readonly #close = new AbortController()
  #looks = false

  constructor(deps: WaitingJobsDeps) {
    this.#deps = deps
    const onDue = (job: WaitingJob) => {
      this.#arrive(job)
      deps.onReady()
    }
    this.#delayed = new DelayedJobs({ clock: deps.clock, timers: deps.timers, onDue })
  }

  add(job: WaitingJob): void {
    this.#note(job)
    if (job.notBeforeMs !== undefined && job.notBeforeMs > this.#deps.clock()) this.#delayed.add(job, job.notBeforeMs)
    else this.#arrive(job)
  }

  /** The next job of an account that may have a turn. One that needs a workspace stays in line for it until `leaveLine` or `block`. */
  take(mayHaveTurn: (accountId: string) => boolean): WaitingJob | undefined {
    const job = this.#ready.take(mayHaveTurn)
    if (job !== undefined) this.#forget(job)
    return job
  }

  /** One that was taken waits again: job `holder` has its workspace. */
  block(job: WaitingJob, holder: string): void {
    if (job.workspace === undefined) return
    this.#note(job)
    if (this.#lines.park(job.workspace.key, holder)) {
      this.#say(job, `which job ${holder} has`)
      if (!this.#looks) void this.#lookRegularly()
    } else this.#ready.add(job)
  }

  /** One that was taken has its workspace, or is over. */
  leaveLine(job: WaitingJob): void {
    if (job.workspace === undefined) return
    const next = this.#lines.leave(job.workspace.key, job)
    if (next !== undefined) this.#ready.add(next)
  }

  /** A job is over that may have had this workspace. */
  freed(key: string): void {
    const next = this.#lines.freed(key)
    if (next !== undefined) this.#ready.add(next)
  }

  /** It waits no more, wherever it did. */
  remove(requestId: string): void {
    const job = this.#all.get(requestId)
    if (job === undefined) return
    this.#forget(job)
    if (this.#delayed.remove(job)) return
    this.#ready.remove(job)
    this.leaveLine(job)
  }

  /** All that wait, and those of an account. */
  get size(): number {
    return this.#all.size
  }

  sizeOf(accountId: string): number {
    return this.#counts.get(accountId) ?? 0
  }

  /** Those that have something that is ready. */
  get readyAccounts(): Iterable<string> {
    return this.#ready.accounts
  }

  close(): void {
    this.#close.abort()
    this.#delayed.close()
  }

  #arrive(job: WaitingJob): void {
    if (job.workspace === undefined || this.#lines.join(job.workspace.key, job)) {
      this.#ready.add(job)
      return
    }
    const before = this.#lines.before(job.workspace.key)
    if (before !== undefined) this.#say(job, 'holder' in before ? `which job ${before.holder} has` : `which job ${before.first.requestId} gets first`)
  }

  #say(job: WaitingJob, who: string): void {
    if (job.hasSaidSo) return
    job.hasSaidSo = true
    void job.run.log.system(`waits for workspace '${job.workspace?.name}', ${who}`, 'info')
  }

  async #lookRegularly(): Promise<void> {
    this.#looks = true
    while (this.#lines.parked.length > 0) {
      try {
        await this.#deps.timers.wait(lookAgainMs, this.#close.signal)
      } catch {
        break
      }
      for (const { workspace } of this.#lines.parked) this.freed(workspace)
      this.#deps.onReady()
    }
    this.#looks = false
  }

  #note(job: WaitingJob): void {
    if (!this.#all.has(job.requestId)) this.#counts.set(job.accountId, this.sizeOf(job.accountId) + 1)
    this.#all.set(job.requestId, job)
  }

  #forget(job: WaitingJob): void {
    if (!this.#all.delete(job.requestId)) return
    const left = this.sizeOf(job.accountId) - 1
    if (left > 0) this.#counts.set(job.accountId, left)
    else this.#counts.delete(job.accountId)
  }
}
