import type { Logger } from 'pino'
import type { GroupCommit } from '../state/group-commit.ts'
import { timestamp } from '../state/timestamp.ts'
import { parseSchedule } from './schedule.ts'
import { mostWaiting, startRun } from './start-run.ts'
import type { DueCron } from './store.ts'
import { type SubmitRunDeps, submitRun } from './submit-run.ts'

export interface CronSchedulerDeps extends SubmitRunDeps {
  readonly commits: GroupCommit
  readonly logger: Logger
}

/** The longest sleep: what other servers changed, and a clock that was set, are seen within it. */
const mostSleepMs = 10_000
const busySleepMs = 2000
/** What is later than this was missed. */
const punctualMs = 60_000
const clockSetBackMs = 1000
const dueAtOnce = 100
const submitsAtOnce = 16

/**
 * Starts crons when they are due. One timer, for the one that is due next; everything else is in the database, so that any number of servers may do this on one.
 *
 * States: idle (until `start`) → sleeping ⇄ looking → closed. A look moves what is due to its next time and stores the run of it in one transaction, then submits what is `starting`, then lets a waiting run of each cron go on when none of its
 * others is under way. `wake` ends a sleep; during a look it makes another follow.
 */
export class CronScheduler {
  readonly #deps: CronSchedulerDeps
  #state: 'idle' | 'sleeping' | 'looking' | 'closed' = 'idle'
  #timer: NodeJS.Timeout | undefined
  #again = false
  #looking: Promise<void> = Promise.resolve()
  #lastSeenMs = Number.NEGATIVE_INFINITY
  #busy = false
  readonly #submits = new Map<string, Promise<void>>()

  constructor(deps: CronSchedulerDeps) {
    this.#deps = deps
  }

  start(): void {
    if (this.#state !== 'idle') return
    // Whatever it was when the server stopped: zones change their rules, and clocks are set.
    this.#lastSeenMs = Number.POSITIVE_INFINITY
    this.#look()
  }

  /** Something has changed: a cron, a run, or a job is over. */
  wake(): void {
    if (this.#state === 'looking') this.#again = true
    else if (this.#state === 'sleeping') this.#look()
  }

  /** Starts nothing any more; resolves when what was begun is done. */
  async close(): Promise<void> {
    this.#state = 'closed'
    clearTimeout(this.#timer)
    await this.#looking
    await Promise.all(this.#submits.values())
  }

  #look(): void {
    this.#state = 'looking'
    clearTimeout(this.#timer)
    this.#looking = this.#lookUntilQuiet().catch((error: unknown) => {
      this.#deps.logger.error({ err: error }, 'crons could not be looked at; this is tried again')
      this.#sleep(mostSleepMs)
    })
  }

  async #lookUntilQuiet(): Promise<void> {
    let allStarted = true
    do {
      this.#again = false
      const now = this.#deps.clock()
      const setBack = now < this.#lastSeenMs - clockSetBackMs
      this.#lastSeenMs = now
      if (setBack) await this.#reschedule(now)
      allStarted = await this.#startDue(now)
      await this.#submitStarting()
      if (await this.#continueWaiting()) await this.#submitStarting()
    } while (this.#again && this.#open)
    const due = await this.#deps.crons.nextDue()
    if (!allStarted || this.#busy) return this.#sleep(busySleepMs)
    const untilDueMs = due === undefined ? Number.NaN : Date.parse(due) - this.#deps.clock()
    this.#sleep(Number.isNaN(untilDueMs) ? mostSleepMs : Math.max(0, Math.min(untilDueMs, mostSleepMs)))
  }

  get #open(): boolean {
    return this.#state !== 'closed'
  }

  #sleep(ms: number): void {
    if (!this.#open) return
    this.#state = 'sleeping'
    this.#timer = setTimeout(() => this.#look(), ms)
    this.#timer.unref()
  }

  /** Times that lie ahead, anew: the clock may have been far in the future when they were set. */
  async #reschedule(now: number): Promise<void> {
    const { crons, commits } = this.#deps
    for (let afterId = ''; this.#open; ) {
      const page = await crons.scheduledAfter(timestamp(now), afterId, dueAtOnce)
      const last = page.at(-1)
      if (last === undefined) return
      afterId = last.cronId
      await Promise.all(
        page.map(async (cron) => {
          const { next, error } = timesOf(cron, now)
          if (next !== cron.nextRunAt) await commits.write((transaction) => crons.moveOn(transaction, cron, next, error))
        }),
      )
    }
  }

  /** Whether all that was due could be started. */
  async #startDue(now: number): Promise<boolean> {
    let allStarted = true
    while (this.#open) {
      const due = await this.#deps.crons.due(timestamp(now), dueAtOnce)
      const started = await Promise.all(due.map((cron) => this.#startOne(cron, now)))
      if (started.includes(false)) allStarted = false
      // Those that fail are found again: only as long as others go on.
      if (due.length < dueAtOnce || !started.includes(true)) break
    }
    return allStarted
  }

  /** Moves it to its next time and stores the run of its newest; whether the cron is not due any more. */
  async #startOne(cron: DueCron, nowMs: number): Promise<boolean> {
    const { crons, commits, logger } = this.#deps
    const { next, latest, error } = timesOf(cron, nowMs)
    if (error !== null) logger.warn({ cronId: cron.cronId, error }, 'a cron cannot be scheduled')
    const dueAt = cron.nextRunAt ?? ''
    const scheduledFor = latest === null || latest < dueAt ? dueAt : latest
    const cause = nowMs - Date.parse(dueAt) > punctualMs ? 'catch_up' : 'schedule'
    try {
      await commits.write(async (transaction) => {
        if (!(await crons.moveOn(transaction, cron, next, error)) || error !== null) return
        const whole = await crons.get(cron.cronId, transaction)
        if (whole?.enabled) await startRun(crons, transaction, whole, { scheduledFor, cause, now: timestamp(nowMs) })
      })
      return true
    } catch (failure) {
      logger.error({ err: failure, cronId: cron.cronId }, 'a cron that is due could not be started; this is tried again')
      return false
    }
  }

  async #submitStarting(): Promise<void> {
    this.#busy = false
    for (let afterSeq = 0; this.#open && !this.#busy; ) {
      const runs = await this.#deps.crons.startingRuns(dueAtOnce, afterSeq)
      for (const { runId, seq } of runs) {
        afterSeq = seq
        if (this.#submits.has(runId)) continue
        while (this.#submits.size >= submitsAtOnce) await Promise.race(this.#submits.values())
        if (!this.#open || this.#busy) return
        const submit = this.#submit(runId).finally(() => this.#submits.delete(runId))
        this.#submits.set(runId, submit)
      }
      if (runs.length < dueAtOnce) return
    }
  }

  /** Submits a run now, if it is to be; for one that somebody waits for. */
  async submitNow(runId: string): Promise<void> {
    const running = this.#submits.get(runId)
    if (running) return await running
    const submit = this.#submit(runId).finally(() => this.#submits.delete(runId))
    this.#submits.set(runId, submit)
    await submit
  }

  async #submit(runId: string): Promise<void> {
    const { dispatcher, logger } = this.#deps
    try {
      const fate = await submitRun(this.#deps, runId)
      if (fate.kind === 'later') {
        this.#busy = true
        logger.warn({ err: fate.error, runId }, 'a run of a cron could not be submitted; this is tried again')
      }
      const job = fate.kind === 'submitted' ? fate.requestId : fate.kind === 'waiting' ? fate.holder : undefined
      const over = job === undefined ? undefined : dispatcher.find(job)?.done
      void over?.then(() => this.wake())
      if (fate.kind === 'failed') this.wake()
    } catch (error) {
      this.#busy = true
      logger.error({ err: error, runId }, 'a run of a cron could not be submitted; this is tried again')
    }
  }

  /** The oldest waiting run of each cron, where none is under way; whether there was one. */
  async #continueWaiting(): Promise<boolean> {
    const { crons, commits } = this.#deps
    const waiting = await crons.waitingCrons()
    const went = await Promise.all(
      waiting.map((cronId) =>
        commits.write(async (transaction) => {
          await crons.lock(transaction, cronId)
          const open = await crons.openRuns(transaction, cronId, mostWaiting + 1)
          const [first] = open
          if (first === undefined || open.some(({ status }) => status !== 'waiting')) return false
          return await crons.changeRun(transaction, first.runId, 'waiting', { status: 'starting', reason: null })
        }),
      ),
    )
    return went.includes(true)
  }
}

/** The times around this one; all null when the schedule cannot be understood (any more). */
function timesOf(cron: DueCron, nowMs: number): { readonly next: string | null; readonly latest: string | null; readonly error: string | null } {
  try {
    const schedule = parseSchedule(cron.schedule, cron.timezone)
    const [next, latest] = [schedule.next(nowMs), schedule.latest(nowMs)]
    return { next: next === undefined ? null : timestamp(next), latest: latest === undefined ? null : timestamp(latest), error: null }
  } catch (error) {
    return { next: null, latest: null, error: error instanceof Error ? error.message : String(error) }
  }
}
