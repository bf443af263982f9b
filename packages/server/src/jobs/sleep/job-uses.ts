import { type ExecRequest, MagsError, type RunningSandbox, type SandboxFiles, type ScriptExit } from '@mags/protocol'
import { AwakeFiles } from './awake-files.ts'
import { JobActivity } from './job-activity.ts'
import type { JobSleep } from './job-sleep.ts'
import { type SandboxUse, type UseReason, unlessAborted } from './sandbox-use.ts'

/** The job as those see it who use it. */
export interface UsedJob {
  readonly persistent: boolean
  readonly environment: Readonly<Record<string, string>>
  readonly sleep: JobSleep
  sandbox(): RunningSandbox | undefined
  isEnding(): boolean
  /** Whether its script has not ended; a startup command is none. */
  scriptRuns(): boolean
  /** Remembers that its URL was used. */
  storeUrlUsed(): void
}

/**
 * Who uses a job from outside: connections, commands, files.
 *
 *     waiting (uses wait) ──begin──► begun (a use wakes it, and keeps it awake) ──end──► over (uses are refused)
 */
export class JobUses {
  readonly #job: UsedJob
  readonly #clock: () => number
  readonly #activity: JobActivity
  readonly #begun = Promise.withResolvers<void>()
  #hasBegun = false
  #urlUsed: boolean
  #wokenAt = 0
  /** Never put to sleep by itself; may change while it runs. */
  noSleep: boolean

  constructor(
    job: UsedJob,
    stored: { readonly noSleep: boolean; readonly urlUsed: boolean },
    time: { readonly clock: () => number; readonly now: () => number },
  ) {
    this.#job = job
    this.#clock = time.clock
    this.#activity = new JobActivity(time.now)
    this.noSleep = stored.noSleep
    this.#urlUsed = stored.urlUsed
  }

  /** Connections, commands and transfers under way. */
  get open(): number {
    return this.#activity.open
  }

  /** Settles once there are none. */
  unused(): Promise<void> {
    return this.#activity.unused()
  }

  /** Settles when it has a sandbox, sleeps or is over. */
  get begun(): Promise<void> {
    return this.#begun.promise
  }

  /** Whether it has a sandbox, or sleeps. */
  get hasBegun(): boolean {
    return this.#hasBegun
  }

  /** When its processes were started or let go on last: ms since 1970; null before. */
  get wokenAt(): number | null {
    return this.#wokenAt === 0 ? null : this.#wokenAt
  }

  /**
   * How long nothing has used it; undefined while it may not sleep, whatever that is. A running script uses it, until its URL was opened or used: then the script is taken for the server behind it, and its
   * traffic counts instead.
   */
  get idleMs(): number | undefined {
    const { persistent, sleep } = this.#job
    if (!persistent || this.noSleep || this.#job.isEnding() || !this.#hasBegun || !sleep.awake) return undefined
    return this.#job.scriptRuns() && !this.#urlUsed ? 0 : this.#activity.idleMs
  }

  /** It has a sandbox, or sleeps. */
  begin(): void {
    this.#hasBegun = true
    this.#wokenAt = this.#clock()
    this.#activity.touch()
    this.#begun.resolve()
  }

  /** Nobody needs to wait any more. */
  end(): void {
    this.#begun.resolve()
  }

  /** Something happened that counts as a use. */
  touch(): void {
    this.#activity.touch()
  }

  /** Its URL was opened, or has a request: what its script does is to serve it. */
  markUrlUsed(): void {
    if (this.#urlUsed) return
    this.#urlUsed = true
    this.#activity.touch()
    this.#job.storeUrlUsed()
  }

  /**
   * Its sandbox, awake until the use is disposed of; waits for its start. Rejects with MagsError 'job_not_running', 'wake_failed', or the reason of `abort`, which ends the waiting and not the wake.
   */
  async use(reason: UseReason, abort?: AbortSignal): Promise<SandboxUse> {
    const end = this.#activity.begin()
    try {
      if (!this.#hasBegun) await unlessAborted(this.#begun.promise, abort)
      this.checkAlive()
      const { sleep } = this.#job
      const woken = sleep.awake ? undefined : await unlessAborted(sleep.wake(reason), abort)
      this.checkAlive()
      const running = this.#job.sandbox()
      if (running === undefined) throw new MagsError('job_not_running', 'the job has no sandbox')
      if (woken) this.#wokenAt = this.#clock()
      if (reason === 'http') this.markUrlUsed()
      return { running, wakeMs: woken?.durationMs ?? null, wokenAt: this.#wokenAt, [Symbol.dispose]: end }
    } catch (error) {
      end()
      throw error
    }
  }

  /** Files of the sandbox, which is woken for each call. Throws MagsError('job_not_running') when there is none. */
  files(): SandboxFiles {
    this.checkAlive()
    return new AwakeFiles(() => this.use('files'))
  }

  /** One more program in the sandbox. Rejects as `use`. */
  async exec(
    request: ExecRequest,
    onOutput: (source: 'stdout' | 'stderr', bytes: Uint8Array) => Promise<void> | void,
    abort: AbortSignal,
  ): Promise<ScriptExit & { timedOut: boolean }> {
    using use = await this.use('exec', abort)
    return await use.running.exec({ ...request, environment: this.environmentWith(request.environment) }, onOutput, abort)
  }

  /** The job's environment with what one program has of its own. */
  environmentWith(own: Readonly<Record<string, string>> | undefined): Readonly<Record<string, string>> {
    return { ...this.#job.environment, ...own }
  }

  /** Throws MagsError('job_not_running'). */
  checkAlive(): void {
    if (!this.#hasBegun) throw new MagsError('job_not_running', 'the job has not started yet; try again once its status is running')
    if (this.#job.isEnding()) throw new MagsError('job_not_running', 'the job is ending')
  }
}
