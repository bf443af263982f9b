import type { RunningSandbox, ScriptExit } from '@mags/protocol'
import type { JobLog } from '../logs/job-log.ts'
import { type Ending, judge, type Verdict } from './job-outcome.ts'
import type { JobRunDeps } from './job-run-deps.ts'
import { setLongTimeout } from './set-long-timeout.ts'
import type { JobSleep } from './sleep/job-sleep.ts'
import type { StartReport } from './start-report.ts'
import { storeSurely } from './store-surely.ts'
import { terminateScript } from './terminate-script.ts'

/** The job as its script sees it. */
export interface ScriptedJob {
  readonly requestId: string
  readonly persistent: boolean
  /** Whether its script runs no more because the sandbox was made anew. */
  readonly restarted: boolean
  readonly hasWorkspace: boolean
  readonly log: JobLog
  readonly sleep: JobSleep
  readonly start: StartReport
  /** The sandbox it has. */
  sandbox(): RunningSandbox | undefined
  /** Why it is being ended, if it is. */
  ending(): Ending | undefined
  /** Whether it is being ended, is over, or was let go. */
  isEnding(): boolean
  /** Whether it was let go: what happens now is for the next process. */
  isDetached(): boolean
  /** Its script has ended. */
  scriptEnded(): void
  /** It ran out of time; this is why it ends. */
  timedOut(words: string): void
  finish(verdict: Verdict): Promise<void>
  /** See `EndingJob`. */
  readonly giveUp: AbortSignal
}

/**
 * What runs in a job's sandbox, and what its end means for the job.
 *
 *     script ──ends──► ended (the job finishes, or rests when it is persistent)
 *        └── restart ─────┴──► startup command (its end means nothing)
 *
 * A resting job, and one with a startup command, is over once its sandbox is lost, unless it wakes in another one.
 */
export class JobScript {
  readonly #deps: Pick<JobRunDeps, 'store' | 'logger' | 'stopGraceMs' | 'timeoutGraceMs'>
  readonly #job: ScriptedJob
  #restarted: boolean
  #exit: ScriptExit | undefined
  readonly #seen = Promise.withResolvers<ScriptExit>()
  #cancelDeadline: () => void = () => undefined

  constructor(deps: Pick<JobRunDeps, 'store' | 'logger' | 'stopGraceMs' | 'timeoutGraceMs'>, job: ScriptedJob) {
    this.#deps = deps
    this.#job = job
    this.#restarted = job.restarted
  }

  /** Whether its sandbox was made anew: what it runs first is the startup command. */
  get restarted(): boolean {
    return this.#restarted
  }

  /** Whether the script has not ended; a startup command is none. */
  get runs(): boolean {
    return this.#exit === undefined && !this.#restarted
  }

  /** How it ended, once that is seen; undefined when it is not before `over`. */
  async endBefore(over: Promise<void>): Promise<ScriptExit | undefined> {
    return (await Promise.race([this.#seen.promise, over])) ?? undefined
  }

  get exitCode(): number | null {
    return this.#exit?.exitCode ?? null
  }

  /** What is launched is the startup command, or not. */
  begin({ restarted }: { readonly restarted: boolean }): void {
    this.#restarted = restarted
  }

  /** Its end was seen by a former process. */
  async adoptExit(exitCode: number): Promise<void> {
    this.#exit = { kind: 'exited', exitCode }
    this.#seen.resolve(this.#exit)
    await this.#job.log.markScriptExit(exitCode)
  }

  /** It may run for `seconds`, of which `spentMs` are over; `words` are said then. */
  armDeadline({ seconds, words }: { readonly seconds: number; readonly words: string }, spentMs = 0): void {
    const { log, sleep } = this.#job
    const onTimeout = () => {
      if (this.#job.ending() || this.#exit) return
      this.#job.timedOut(words)
      void log.system(words, 'error')
      void sleep.end().then(async () => {
        const running = this.#job.sandbox()
        if (running !== undefined) await this.#terminate(running, this.#deps.timeoutGraceMs)
      })
    }
    this.#cancelDeadline = setLongTimeout(onTimeout, Math.max(0, seconds * 1000 - spentMs))
  }

  cancelDeadline(): void {
    this.#cancelDeadline()
  }

  /** Settles when the script has ended and the job is finished or rests; at once when what runs is a startup command. */
  async follow(running: RunningSandbox): Promise<void> {
    if (this.#restarted) return this.#followStartup(running)
    const exit = await running.exited
    if (running !== this.#job.sandbox() || this.#job.sleep.isDeepening) return
    if (exit.kind === 'sandbox-lost' && !this.#job.isEnding() && (await this.#job.sleep.lost(running))) return
    await this.#settle(exit, running)
  }

  /** The job has another sandbox, in which its startup command runs, or none. */
  restart(running: RunningSandbox | undefined): void {
    this.#restarted = true
    this.#cancelDeadline()
    if (running !== undefined) this.#followStartup(running)
  }

  /** Of a job that rests in it. */
  followSandbox(running: RunningSandbox): void {
    void running.gone.then(async () => {
      if (this.#job.isDetached() || this.#job.ending() || running !== this.#job.sandbox() || (await this.#job.sleep.lost(running))) return
      const error = 'the sandbox was lost'
      await this.#job.finish({ status: 'error', exitCode: this.exitCode, error, row: error })
    })
  }

  /** Ends the script, or the startup command, as after a stop. */
  stop(running: RunningSandbox): Promise<void> {
    return this.#terminate(running, this.#deps.stopGraceMs)
  }

  /** The startup command may end: the job does not with it. */
  #followStartup(running: RunningSandbox): void {
    void running.exited.then(async ({ kind, exitCode, reason }) => {
      if (running !== this.#job.sandbox() || this.#job.isEnding() || kind === 'sandbox-lost' || (kind === 'exited' && exitCode === 0)) return
      await this.#job.log.system(reason ?? `the startup command ended with exit code ${exitCode}`, 'error')
    })
    this.followSandbox(running)
  }

  async #settle(exit: ScriptExit, running: RunningSandbox): Promise<void> {
    const { requestId, persistent, log, start } = this.#job
    if (this.#job.isDetached() || this.#exit) return
    this.#exit = exit
    this.#job.scriptEnded()
    this.#cancelDeadline()
    start.scriptEnded()
    const ending = this.#job.ending()
    const lives = persistent && ending === undefined && (exit.kind === 'exited' || exit.kind === 'signalled')
    if (!lives) {
      this.#seen.resolve(exit)
      return await this.#job.finish(judge(exit, ending))
    }
    if (exit.reason !== undefined) await log.system(exit.reason, 'error')
    await log.flush()
    const store = () => this.#deps.store.setScriptExit(requestId, exit.exitCode, start.timings)
    await storeSurely(store, (error) => this.#warn(error, 'the state of a job could not be stored'), { giveUp: this.#job.giveUp })
    await log.markScriptExit(exit.exitCode)
    this.#seen.resolve(exit)
    this.followSandbox(running)
  }

  async #terminate(running: RunningSandbox, graceMs: number): Promise<void> {
    const keepsSandbox = this.#job.hasWorkspace
    const seen = await terminateScript(running, { graceMs, keepsSandbox, warn: (error, words) => this.#warn(error, words) })
    if (!seen && !this.#restarted) await this.#settle({ kind: 'sandbox-lost', exitCode: 137 }, running)
  }

  #warn(error: unknown, words: string): void {
    this.#deps.logger.warn({ err: error, requestId: this.#job.requestId }, words)
  }
}
