import type { Logger } from 'pino'
import type { Timers } from '../../workspaces/timers.ts'
import type { JobRun } from '../job-run.ts'

export interface SleepWatchDeps {
  /** The jobs that are not over. */
  readonly runs: () => Iterable<JobRun>
  readonly timers: Timers
  readonly logger: Logger
  /** Between two checks; 0: no job is put to sleep by itself. */
  readonly checkMs: number
  /** A job that nothing has used for so long sleeps. */
  readonly afterMs: number
  /** One that slept for so long gives its memory back. */
  readonly releaseAfterMs: number
  /** Share of the machine's memory that is free for others, 0 to 1. */
  readonly memoryAvailable: () => Promise<number>
}

/** Each saves a workspace, perhaps a large one. */
const mostAtOnce = 8
const leastMemoryAvailable = 0.1

/**
 * Puts jobs to sleep that nobody uses, and lets those sleep deeper that sleep for long, or when memory is short: then whoever sleeps longest first, until it is not short any more.
 * States: stopped → watching (`start`) → closed.
 */
export class SleepWatch {
  readonly #deps: SleepWatchDeps
  readonly #close = new AbortController()
  readonly #queued = new Map<JobRun, () => Promise<unknown>>()
  #active = 0

  constructor(deps: SleepWatchDeps) {
    this.#deps = deps
  }

  start(): void {
    if (this.#deps.checkMs > 0) void this.#watch()
  }

  close(): void {
    this.#close.abort()
    this.#queued.clear()
  }

  /** One check. What it begins goes on in the background. */
  async check(): Promise<void> {
    const { afterMs, releaseAfterMs, memoryAvailable, logger } = this.#deps
    const runs = [...this.#deps.runs()]
    for (const run of runs) {
      const { idleMs } = run.uses
      if (idleMs !== undefined && idleMs >= afterMs) this.#add(run, () => run.sleep.fallAsleep(`nothing used it for ${inWords(idleMs)}`))
    }
    const frozen = runs.filter((run) => run.sleep.frozenMs !== undefined).sort((a, b) => (b.sleep.frozenMs ?? 0) - (a.sleep.frozenMs ?? 0))
    if (frozen.length === 0) return
    const isShort = async () => (await memoryAvailable()) < leastMemoryAvailable
    for (const run of frozen) {
      if ((run.sleep.frozenMs ?? 0) >= releaseAfterMs) {
        this.#add(run, () => run.sleep.deepen())
      } else if (await isShort()) {
        await run.sleep
          .deepen()
          .catch((error: unknown) => logger.warn({ err: error, requestId: run.requestId }, 'the memory of a sleeping job could not be freed'))
      } else {
        return
      }
      if (this.#close.signal.aborted) return
    }
  }

  async #watch(): Promise<void> {
    const { timers, checkMs, logger } = this.#deps
    for (;;) {
      try {
        await timers.wait(checkMs, this.#close.signal)
      } catch {
        return
      }
      await this.check().catch((error: unknown) => logger.warn({ err: error }, 'jobs that nobody uses could not be looked for'))
    }
  }

  #add(run: JobRun, work: () => Promise<unknown>): void {
    if (this.#queued.has(run)) return
    this.#queued.set(run, work)
    this.#work()
  }

  #work(): void {
    for (const [run, work] of this.#queued) {
      if (this.#active >= mostAtOnce) return
      this.#queued.delete(run)
      this.#active++
      // What went wrong is in the job's log, and in ours.
      void work()
        .catch(() => undefined)
        .finally(() => {
          this.#active--
          this.#work()
        })
    }
  }
}

function inWords(ms: number): string {
  const minutes = Math.round(ms / 60_000)
  return minutes < 1 ? `${Math.round(ms / 1000)} s` : `${minutes} min`
}
