import { type EgressPolicy, MagsError, type RunningSandbox, type SandboxLease, type SandboxSpec, type ScriptSpec, type WorkspaceSaved } from '@mags/protocol'
import type { JobLog } from '../logs/job-log.ts'
import { timestamp } from '../state/timestamp.ts'
import { JobWorkspace } from '../workspaces/job-workspace.ts'
import { wordsOf } from '../workspaces/save-left.ts'
import { type Job, type JobHead, type JobTimings, sandboxSpecOf } from './job.ts'
import { deadlineOf, type Ending, failed, jobIsEnding, judge, mayWorkAgain, type Verdict } from './job-outcome.ts'
import type { JobRunDeps } from './job-run-deps.ts'
import { JobSandbox } from './job-sandbox.ts'
import { JobScript } from './job-script.ts'
import { JobTrouble } from './job-trouble.ts'
import { endTry, type Tries } from './retry-job.ts'
import { scriptOf } from './script-of.ts'
import { JobSleep } from './sleep/job-sleep.ts'
import { JobUses } from './sleep/job-uses.ts'
import { restartJob } from './sleep/restart-job.ts'
import { startupOutput } from './sleep/startup-output.ts'
import { StartReport } from './start-report.ts'
import { tellProgress } from './tell-progress.ts'

/**
 * One job from its row to its end, or one try of it.
 *
 *     waiting ──take──► taking ──► taken ──execute──► starting ──► running ──► finished
 *                                                     adopt ─────────►│  ▲
 *                                           (persistent, script ended) └──┘ resting
 *
 * What leads from `running` on is the end of its script: {@link JobScript}. In `running` and `resting` a persistent job may sleep and wake: {@link JobSleep}. When it wakes in a new sandbox, it rests there,
 * whatever its script did before.
 *
 * `stop`, a timeout, a failure and a lost sandbox lead to `finished` from anywhere; whichever is first decides. In `finished` the log and the status are
 * stored, followers are told, and the sandbox is destroyed in the background. A workspace is saved before the status is stored. A try that failed with others left puts the job back among those that wait, where a
 * new object goes on with the same log: {@link endTry}; `done` is of the job, not of the try. `detach` (the server goes, the job stays) leaves row and sandbox as they are.
 */
export class JobRun {
  readonly requestId: string
  readonly accountId: string
  readonly persistent: boolean
  readonly log: JobLog
  readonly sleep: JobSleep
  readonly uses: JobUses
  readonly trouble: JobTrouble
  readonly #deps: JobRunDeps
  readonly #start: StartReport
  readonly #abort = new AbortController()
  readonly #done: PromiseWithResolvers<void>
  readonly #tries: Tries
  #workspace: JobWorkspace | undefined
  #entering: Promise<void> | undefined
  readonly #sandbox: JobSandbox
  readonly #script: JobScript
  #ending: Ending | undefined
  #finishing: Promise<void> | undefined
  #stopping: Promise<void> | undefined
  #detached = false
  #waiting = true
  #next: JobRun | undefined

  /** `acceptedAt` is a reading of `performance.now()`; `before` is the try that failed. */
  constructor(deps: JobRunDeps, job: JobHead, acceptedAt: number, before?: JobRun) {
    this.#deps = deps
    this.requestId = job.requestId
    this.accountId = job.accountId
    this.persistent = job.persistent
    this.#start = new StartReport(acceptedAt, (timings) => this.#storeTimings(timings))
    const firstOutput = () => this.#start.firstOutput()
    this.log = before?.log ?? deps.logs.create(job.requestId, firstOutput)
    if (before) this.log.onFirstOutput(firstOutput)
    this.#done = before === undefined ? Promise.withResolvers<void>() : before.#done
    const { requestId, persistent, restarted, environment, attempt, maxRetries, retryBackoffSeconds } = job
    const { log } = this
    this.trouble = new JobTrouble(log, () => void this.#destroy())
    this.#tries = { attempt, maxRetries, retryBackoffSeconds }
    this.hold(job)
    const workspace = () => this.#workspace
    const { store, clock, logger } = deps
    const { timers, stopSaveWaitMs } = deps.saving
    this.#sandbox = new JobSandbox(deps, job, { log, trouble: this.trouble, onFault: (words) => void this.fail(words) })
    const sleeper = {
      requestId,
      log,
      get workspace() {
        return workspace()
      },
      fellAsleep: () => deps.onAsleep?.(),
      wakes: () => deps.onWake?.(job.accountId),
      sandbox: () => this.#sandbox.running,
      replace: (running: RunningSandbox | undefined) => {
        this.#sandbox.replace(running)
        this.#script.restart(running)
      },
      isUsed: () => this.uses.open > 0 || this.uses.noSleep || this.#isEnding,
      restart: (abort: AbortSignal) => restartJob(deps, requestId, log, abort),
    }
    this.sleep = new JobSleep({ store, clock, logger, timers, leaveWaitMs: stopSaveWaitMs }, sleeper)
    const seen = { persistent, sleep: this.sleep, sandbox: sleeper.sandbox, isEnding: () => this.#isEnding }
    this.#script = new JobScript(deps, {
      ...seen,
      requestId,
      restarted,
      get hasWorkspace() {
        return workspace() !== undefined
      },
      log,
      start: this.#start,
      ending: () => this.#ending,
      isDetached: () => this.#detached,
      scriptEnded: () => this.uses.touch(),
      timedOut: (words) => {
        this.#ending = { kind: 'timeout', words }
      },
      finish: (verdict) => this.#finish(verdict),
      giveUp: this.trouble.giveUp,
    })
    const used = {
      ...seen,
      environment,
      scriptRuns: () => this.#script.runs,
      storeUrlUsed: () => void store.markUrlUsed(requestId).catch((error: unknown) => this.#warn(error, 'that the URL of a job is used could not be stored')),
    }
    this.uses = new JobUses(used, job, { clock, now: () => timers.now() })
  }

  /** Settles when the job is over and its status stored, or it was detached. */
  get done(): Promise<void> {
    return this.#done.promise
  }

  /** Whether the job is still `pending` in the database. */
  get waiting(): boolean {
    return this.#waiting
  }

  /** Steps measured so far; they are stored at the end (a persistent job's earlier). */
  get timings(): JobTimings {
    return this.#start.timings
  }

  /** Whether it ended, rather than being left to the next process or tried again. */
  get isOver(): boolean {
    return this.#finishing !== undefined && this.#next === undefined
  }

  /** How its script ended, once that is in its log and row; undefined when that is not seen: the job is over before, or left to the next process. A persistent job lives on, and the init of an image is a script. */
  get scriptEnd(): ReturnType<JobScript['endBefore']> {
    return this.#script.endBefore(this.done)
  }

  /** It has its workspace, if it is to have one. */
  hold({ requestId, workspaceId, workspaceStorageId: storageId }: JobHead): void {
    if (workspaceId === null || storageId === null || this.#workspace !== undefined) return
    this.#workspace = new JobWorkspace(this.#deps.saving, { requestId, workspaceId, storageId, log: this.log, onFenced: (words) => void this.fail(words) })
  }

  /** Whether `enter` would have to wait. */
  get waitsForTurn(): boolean {
    return this.#workspace?.isBusy ?? false
  }

  /** Waits until nothing works on its workspace any more, such as the sandbox of the job before; `take` does it, too. Rejects when the job ends meanwhile. */
  enter(): Promise<void> {
    this.#entering ??= this.#workspace?.enter(this.#abort.signal) ?? Promise.resolve()
    return this.#entering
  }

  /** Takes a sandbox and stores that; undefined when the job ended instead. */
  async take(job: Job): Promise<SandboxLease | undefined> {
    try {
      const shares = this.#deps.accounts?.() ?? 1
      return await this.takeFrom(job, (spec, abort) => this.#deps.host.acquire({ ...spec, shares }, abort, tellProgress(this.log)))
    } catch (error) {
      await this.#failBy(error)
      this.#workspace?.leave()
      return undefined
    }
  }

  /** Takes what `obtain` makes, and stores that. Rejects with why there is none; the job is then neither ended nor let go. */
  async takeFrom(job: Job, obtain: (spec: SandboxSpec, abort: AbortSignal) => Promise<SandboxLease>): Promise<SandboxLease> {
    this.#start.dequeued()
    // Ready by the time the first output comes; a failure shows at the first write.
    this.log.open().catch(() => undefined)
    await this.enter()
    const lease = await obtain(this.#sandbox.applyPolicy(sandboxSpecOf(job)), this.#abort.signal)
    this.#start.acquired()
    const stored = await this.#storeTaken(lease).catch(async (error: unknown) => {
      await lease.release()
      throw error
    })
    if (stored) return lease
    await lease.release()
    throw this.#isEnding ? jobIsEnding() : new MagsError('internal', 'the job is not pending any more; another server may use the same database')
  }

  /** Runs the script in the sandbox taken. Settles when the script has ended. */
  async execute(job: Job, lease: SandboxLease): Promise<void> {
    try {
      await this.launch(job, lease)
    } catch (error) {
      return await this.#failBy(error)
    }
    await this.follow()
  }

  /** Starts the script in the sandbox taken, or the startup command of a job that is `restarted`. Rejects with why it could not; the sandbox is then gone, unless the job was let go. */
  async launch(job: Job, lease: SandboxLease): Promise<void> {
    this.#script.begin(job)
    let script: ScriptSpec
    let running: RunningSandbox
    try {
      if (this.#ending) throw jobIsEnding()
      script = await scriptOf(job, this.#deps.files)
      if (this.#ending) throw jobIsEnding()
    } catch (error) {
      await this.#giveBack(lease)
      throw error
    }
    try {
      running = await lease.run(script, job.restarted ? startupOutput(this.log) : this.log.sink)
    } catch (error) {
      this.#workspace?.leave()
      throw error
    }
    this.#sandbox.begin(running)
    if (this.#detached) throw jobIsEnding()
    this.#sandbox.watch({ hasRules: job.egress !== null, isOver: this.#finishing !== undefined })
    this.#start.attached()
    this.uses.begin()
    const deadline = deadlineOf(job, this.#deps.maxJobSeconds ?? 0)
    if (deadline !== undefined && !job.restarted) this.#script.armDeadline(deadline)
    if (!this.#finishing) this.#workspace?.watch(running)
  }

  /** Settles when the script that was launched has ended; at once when that was a startup command. */
  async follow(): Promise<void> {
    const { running } = this.#sandbox
    if (running === undefined) return
    // A stop or the end of the server came while the script was being started.
    if (this.#finishing) return void this.#destroy()
    await this.#script.follow(running)
  }

  /** Goes on with a sandbox of a former process; without one it is a job that wakes in a new sandbox. */
  async adopt(job: JobHead, running: RunningSandbox | undefined): Promise<void> {
    this.#waiting = false
    this.#sandbox.adopt(running)
    const asleep = job.sleepStage !== null
    if (job.sleepStage !== null)
      this.sleep.adopt(running ? job.sleepStage : 'released', Math.max(0, this.#deps.clock() - Date.parse(job.sleptAt ?? job.createdAt)))
    if (running) this.#workspace?.watch(running, { asleep })
    await this.#workspace?.enter()
    this.uses.begin()
    if (job.exitCode !== null) await this.#script.adoptExit(job.exitCode)
    if (running === undefined) return
    if (job.restarted) return await this.#script.follow(running)
    if (job.exitCode !== null) return this.#script.followSandbox(running)
    // What the operator allows may have changed since; what runs goes on to its end.
    const deadline = deadlineOf(job, 0)
    if (deadline !== undefined && job.startedAt !== null) this.#script.armDeadline(deadline, Math.max(0, this.#deps.clock() - Date.parse(job.startedAt)))
    await this.follow()
  }

  /** Ends the job as `stopped`; settles once that is stored. Rejects with MagsError 'storage_full' when that has to wait for room. */
  stop(): Promise<void> {
    this.#stopping ??= Promise.race([this.#stop(), this.trouble.unstored])
    return this.#stopping
  }

  /** Ends the job as `error`, without waiting for its script. */
  async shutDown(reason: string): Promise<void> {
    this.#ending ??= { kind: 'shutdown', reason }
    this.#workspace?.hurry()
    this.trouble.leave()
    await this.#finish(judge({ kind: 'sandbox-lost', exitCode: 137 }, this.#ending))
  }

  /** Ends the job as `error` for a reason found outside; `retryable`: unless it is to be tried again. */
  async fail(reason: string, options?: { readonly retryable: boolean }): Promise<void> {
    await this.#finish(failed(reason, options))
  }

  /** Leaves the job as it is stored, for the next process. */
  async detach(): Promise<void> {
    this.trouble.leave()
    if (this.#finishing) {
      this.#workspace?.hurry()
      await this.#finishing
      return await this.#next?.detach()
    }
    this.#detached = true
    this.#script.cancelDeadline()
    this.#sandbox.egress.detach()
    this.#abort.abort(new MagsError('no_capacity', 'the server is shutting down'))
    await this.sleep.leave()
    await this.#workspace?.pause()
    await this.log.close()
    this.#done.resolve()
  }

  /** Lets go of it and ends its sandbox; what is stored of it is the caller's to delete. */
  async discard(): Promise<void> {
    await this.detach()
    await this.#sandbox.destroy()
    this.#workspace?.leave()
  }

  /** Saves its workspace now; one that sleeps has nothing new. Rejects with MagsError 'bad_request' when it has none, 'job_not_running', and as `RunningSandbox.saveWorkspace`. */
  async sync(): Promise<WorkspaceSaved & { readonly workspaceId: string }> {
    if (this.#workspace === undefined) throw new MagsError('bad_request', 'the job has no workspace')
    this.uses.checkAlive()
    return { ...(await this.#workspace.sync()), workspaceId: this.#workspace.workspaceId }
  }

  /** What it may reach from now on; before it has a sandbox, from its start on. Rejects as `RunningSandbox.setEgress`. */
  setEgress(policy: EgressPolicy): Promise<void> {
    return this.#sandbox.setEgress(policy)
  }

  /** Whether its sandbox was made anew: what it runs first is the startup command. */
  get restarted(): boolean {
    return this.#script.restarted
  }

  get #isEnding(): boolean {
    return this.#ending !== undefined || this.#finishing !== undefined || this.#detached
  }

  async #giveBack(lease: SandboxLease): Promise<void> {
    await lease.release().catch((error: unknown) => this.#warn(error, 'a sandbox could not be given back'))
    this.#workspace?.leave()
  }

  #storeTaken(lease: SandboxLease): Promise<boolean> {
    if (this.#ending || this.#detached) return Promise.resolve(false)
    this.#waiting = false
    const { queueMs, acquireMs } = this.timings
    const { sandboxId: vmId, isolation, warm } = lease
    const times = { queueMs: queueMs ?? 0, acquireMs: acquireMs ?? 0, startedAt: timestamp(this.#deps.clock()) }
    return this.trouble.store(() => this.#deps.store.markRunning(this.requestId, { vmId, isolation, warm, ...times }), this.#abort.signal)
  }

  #storeTimings(timings: JobTimings): void {
    if (!this.persistent) return
    this.#deps.store.setTimings(this.requestId, timings).catch((error: unknown) => this.#warn(error, 'the timings of a job could not be stored'))
  }

  async #stop(): Promise<void> {
    if (this.#finishing) {
      await this.#finishing
      return await this.#next?.stop()
    }
    this.#ending ??= { kind: 'stop' }
    this.#abort.abort(new MagsError('job_not_running', 'the job was stopped'))
    const reachable = await this.sleep.end()
    const running = reachable ? this.#sandbox.running : undefined
    const scriptRan = this.#script.runs
    if (running !== undefined && (scriptRan || this.restarted)) await this.#script.stop(running)
    if (running === undefined || !scriptRan) await this.#finish({ status: 'stopped', exitCode: this.#script.exitCode, error: null })
    await this.done
  }

  #finish(verdict: Verdict): Promise<void> {
    this.#finishing ??= this.#finishNow(verdict)
    return this.#finishing
  }

  async #finishNow(verdict: Verdict): Promise<void> {
    this.#script.cancelDeadline()
    this.uses.end()
    await this.sleep.end()
    const [{ requestId, log }, { onRetry }] = [this, this.#deps]
    const stopping = () => this.#ending?.kind === 'stop' || this.#ending?.kind === 'shutdown'
    const next = onRetry === undefined || this.#detached ? undefined : (job: Job) => onRetry(job, this)
    const { room } = this.trouble
    const ending = { requestId, log, workspace: this.#workspace, egress: this.#sandbox.egress, timings: () => this.timings, stopping, ...room }
    this.#next = await endTry(this.#deps, { ...ending, tries: this.#tries, endSandbox: () => this.#sandbox.end(this.#destroy()), next }, verdict)
    if (this.#next !== undefined) return
    this.#done.resolve()
    void this.#destroy()
  }

  async #destroy(): Promise<void> {
    const { running } = this.#sandbox
    await this.#sandbox.destroy()
    // Released, it has none; before its start whoever starts it leaves the workspace.
    if (running !== undefined || this.uses.hasBegun) this.#workspace?.leave()
  }

  async #failBy(error: unknown): Promise<void> {
    if (this.#isEnding) return
    if (!(error instanceof MagsError)) this.#deps.logger.error({ err: error, requestId: this.requestId }, 'a job failed for an unknown reason')
    await this.#finish(failed(wordsOf(error), { retryable: mayWorkAgain(error) }))
  }

  #warn(error: unknown, words: string): void {
    this.#deps.logger.warn({ err: error, requestId: this.requestId }, words)
  }
}
