import {
  type EgressPolicy,
  MagsError,
  type RunningSandbox,
  type SandboxLease,
  type SandboxSpec,
  type ScriptExit,
  type ScriptSpec,
  type WorkspaceSaved,
} from '@mags/protocol'
import type { JobLog } from '../logs/job-log.ts'
import { timestamp } from '../state/timestamp.ts'
import { JobWorkspace } from '../workspaces/job-workspace.ts'
import { wordsOf } from '../workspaces/save-left.ts'
import { type Job, type JobTimings, sandboxSpecOf } from './job.ts'
import { JobEgress } from './job-egress.ts'
import { type Ending, failed, judge, timeoutWords, type Verdict, withUnsaved } from './job-outcome.ts'
import type { JobRunDeps } from './job-run-deps.ts'
import { scriptOf } from './script-of.ts'
import { setLongTimeout } from './set-long-timeout.ts'
import { JobSleep } from './sleep/job-sleep.ts'
import { JobUses } from './sleep/job-uses.ts'
import { restartJob } from './sleep/restart-job.ts'
import { startupOutput } from './sleep/startup-output.ts'
import { StartReport } from './start-report.ts'
import { storeSurely } from './store-surely.ts'
import { tellProgress } from './tell-progress.ts'
import { terminateScript } from './terminate-script.ts'

/**
 * One job from its row to its end.
 *
 *     waiting ──take──► taking ──► taken ──execute──► starting ──► running ──► finished
 *                                                     adopt ─────────►│  ▲
 *                                           (persistent, script ended) └──┘ resting
 *
 * In `running` and `resting` a persistent job may sleep and wake: {@link JobSleep}. When it wakes in a new sandbox, it rests there, whatever its script did before.
 *
 * `stop`, a timeout, a failure and a lost sandbox lead to `finished` from anywhere; whichever is first decides. In `finished` the log and the status are
 * stored, followers are told, and the sandbox is destroyed in the background. A workspace is saved before the status is stored. `detach` (the server goes, the job stays) leaves row and sandbox as they are.
 */
export class JobRun {
  readonly requestId: string
  readonly accountId: string
  readonly persistent: boolean
  readonly log: JobLog
  readonly sleep: JobSleep
  readonly uses: JobUses
  readonly #deps: JobRunDeps
  readonly #start: StartReport
  readonly #abort = new AbortController()
  readonly #done = Promise.withResolvers<void>()
  readonly #workspace: JobWorkspace | undefined
  readonly #egressWatch: JobEgress
  #running: RunningSandbox | undefined
  #scriptExit: ScriptExit | undefined
  #ending: Ending | undefined
  #finishing: Promise<void> | undefined
  #stopping: Promise<void> | undefined
  #cancelDeadline: () => void = () => undefined
  #detached = false
  #waiting = true
  #restarted: boolean
  /** Changed while the sandbox was made with another one. */
  /** The last policy it was given since it is here. */
  #egress: EgressPolicy | undefined
  /** That came while there was no sandbox to give it to. */
  #hasNewEgress = false

  /** `acceptedAt` is a reading of `performance.now()`. */
  constructor(deps: JobRunDeps, job: Job, acceptedAt: number) {
    this.#deps = deps
    this.requestId = job.requestId
    this.accountId = job.accountId
    this.persistent = job.persistent
    this.#restarted = job.restarted
    this.#start = new StartReport(acceptedAt, (timings) => this.#storeTimings(timings))
    this.log = deps.logs.create(job.requestId, () => this.#start.firstOutput())
    if (job.workspaceId !== null && job.workspaceStorageId !== null) {
      const { requestId, workspaceId, workspaceStorageId: storageId } = job
      this.#workspace = new JobWorkspace(deps.saving, { requestId, workspaceId, storageId, log: this.log, onFenced: (words) => void this.fail(words) })
    }
    const { store, clock, logger } = deps
    const { timers, stopSaveWaitMs } = deps.saving
    const storeBytes = (bytes: number) => store.setEgressBytes(job.requestId, bytes)
    this.#egressWatch = new JobEgress({ storedBytes: job.egressBytes, log: this.log, logger, timers, storeBytes })
    this.sleep = new JobSleep(
      { store, clock, logger, timers, leaveWaitMs: stopSaveWaitMs },
      {
        requestId: job.requestId,
        log: this.log,
        workspace: this.#workspace,
        sandbox: () => this.#running,
        replace: (running) => this.#replace(running),
        isUsed: () => this.uses.open > 0 || this.uses.noSleep || this.#isEnding,
        restart: (abort) => restartJob(deps, job.requestId, this.log, abort),
      },
    )
    const used = {
      persistent: job.persistent,
      environment: job.environment,
      sleep: this.sleep,
      sandbox: () => this.#running,
      isEnding: () => this.#isEnding,
      scriptRuns: () => this.#scriptRuns,
      storeUrlUsed: () =>
        void store.markUrlUsed(job.requestId).catch((error: unknown) => this.#warn(error, 'that the URL of a job is used could not be stored')),
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

  /** Whether it ended, rather than being left to the next process. */
  get isOver(): boolean {
    return this.#finishing !== undefined
  }

  /** Takes a sandbox and stores that; undefined when the job ended instead. */
  async take(job: Job): Promise<SandboxLease | undefined> {
    try {
      return await this.takeFrom(job, (spec, abort) => this.#deps.host.acquire(spec, abort, tellProgress(this.log)))
    } catch (error) {
      if (!this.#isEnding) await this.#finish(this.#failure(error))
      this.#workspace?.leave()
      return undefined
    }
  }

  /** Takes what `obtain` makes, and stores that. Rejects with why there is none; the job is then neither ended nor let go. */
  async takeFrom(job: Job, obtain: (spec: SandboxSpec, abort: AbortSignal) => Promise<SandboxLease>): Promise<SandboxLease> {
    this.#start.dequeued()
    // Ready by the time the first output comes; a failure shows at the first write.
    this.log.open().catch(() => undefined)
    await this.#workspace?.enter(this.#abort.signal)
    const spec = this.#egress === undefined ? sandboxSpecOf(job) : { ...sandboxSpecOf(job), egress: this.#egress }
    this.#hasNewEgress = false
    const lease = await obtain(spec, this.#abort.signal)
    this.#start.acquired()
    const stored = await this.#storeTaken(lease).catch(async (error: unknown) => {
      await lease.release()
      throw error
    })
    if (stored) return lease
    await lease.release()
    throw this.#isEnding ? ended() : new MagsError('internal', 'the job is not pending any more; another server may use the same database')
  }

  /** Runs the script in the sandbox taken. Settles when the script has ended. */
  async execute(job: Job, lease: SandboxLease): Promise<void> {
    try {
      await this.launch(job, lease)
    } catch (error) {
      if (!this.#isEnding) await this.#finish(this.#failure(error))
      return
    }
    await this.follow()
  }

  /** Starts the script in the sandbox taken, or the startup command of a job that is `restarted`. Rejects with why it could not; the sandbox is then gone, unless the job was let go. */
  async launch(job: Job, lease: SandboxLease): Promise<void> {
    this.#restarted = job.restarted
    let script: ScriptSpec
    try {
      if (this.#ending) throw ended()
      script = await scriptOf(job, this.#deps.files)
      if (this.#ending) throw ended()
    } catch (error) {
      await this.#giveBack(lease)
      throw error
    }
    try {
      this.#running = await lease.run(script, job.restarted ? startupOutput(this.log) : this.log.sink)
    } catch (error) {
      this.#workspace?.leave()
      throw error
    }
    if (this.#detached) throw ended()
    if (!this.#finishing) this.#egressWatch.watch(this.#running, { hasRules: job.egress !== null })
    this.#catchUpEgress(this.#running)
    this.#start.attached()
    this.uses.begin()
    if (job.timeoutSeconds !== null && !job.restarted) this.#armDeadline(job.timeoutSeconds, job.timeoutSeconds * 1000)
    if (!this.#finishing) this.#workspace?.watch(this.#running)
  }

  /** Settles when the script that was launched has ended; at once when that was a startup command. */
  async follow(): Promise<void> {
    const running = this.#running
    if (running === undefined) return
    // A stop or the end of the server came while the script was being started.
    if (this.#finishing) return this.#destroy()
    if (this.#restarted) return this.#watchRestarted(running)
    await this.#watch(running)
  }

  /** Goes on with a sandbox of a former process; without one it is a job that wakes in a new sandbox. */
  async adopt(job: Job, running: RunningSandbox | undefined): Promise<void> {
    this.#waiting = false
    this.#running = running
    const asleep = job.sleepStage !== null
    if (job.sleepStage !== null)
      this.sleep.adopt(running ? job.sleepStage : 'released', Math.max(0, this.#deps.clock() - Date.parse(job.sleptAt ?? job.createdAt)))
    if (running) this.#workspace?.watch(running, { asleep })
    if (running) this.#egressWatch.watch(running, { isAdopted: true })
    await this.#workspace?.enter()
    this.uses.begin()
    if (job.exitCode !== null) {
      this.#scriptExit = { kind: 'exited', exitCode: job.exitCode }
      await this.log.markScriptExit(job.exitCode)
    }
    if (running === undefined) return
    if (job.restarted) return this.#watchRestarted(running)
    if (job.exitCode !== null) return this.#watchSandbox(running)
    if (job.timeoutSeconds !== null && job.startedAt !== null) {
      const spentMs = Math.max(0, this.#deps.clock() - Date.parse(job.startedAt))
      this.#armDeadline(job.timeoutSeconds, Math.max(0, job.timeoutSeconds * 1000 - spentMs))
    }
    await this.follow()
  }

  /** Ends the job as `stopped`; settles once that is stored. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop()
    return this.#stopping
  }

  /** Ends the job as `error`, without waiting for its script. */
  async shutDown(reason: string): Promise<void> {
    this.#ending ??= { kind: 'shutdown', reason }
    this.#workspace?.hurry()
    await this.#finish(judge({ kind: 'sandbox-lost', exitCode: 137 }, this.#ending))
  }

  /** Ends the job as `error` for a reason found outside. */
  async fail(reason: string): Promise<void> {
    await this.#finish(failed(reason))
  }

  /** Leaves the job as it is stored, for the next process. */
  async detach(): Promise<void> {
    if (this.#finishing) {
      this.#workspace?.hurry()
      return await this.#finishing
    }
    this.#detached = true
    this.#cancelDeadline()
    this.#egressWatch.detach()
    this.#abort.abort(new MagsError('no_capacity', 'the server is shutting down'))
    await this.sleep.leave()
    await this.#workspace?.pause()
    await this.log.close()
    this.#done.resolve()
  }

  /** Lets go of it and ends its sandbox; what is stored of it is the caller's to delete. */
  async discard(): Promise<void> {
    await this.detach()
    await this.#running?.destroy().catch((error: unknown) => this.#warn(error, 'a sandbox could not be destroyed'))
    this.#workspace?.leave()
  }

  /** Saves its workspace now; one that sleeps has nothing new. Rejects with MagsError 'bad_request' when it has none, 'job_not_running', and as `RunningSandbox.saveWorkspace`. */
  async sync(): Promise<WorkspaceSaved & { readonly workspaceId: string }> {
    if (this.#workspace === undefined) throw new MagsError('bad_request', 'the job has no workspace')
    this.uses.checkAlive()
    return { ...(await this.#workspace.sync()), workspaceId: this.#workspace.workspaceId }
  }

  /** What it may reach from now on; before it has a sandbox, from its start on. Rejects as `RunningSandbox.setEgress`. */
  async setEgress(policy: EgressPolicy): Promise<void> {
    // First where it is in force, so that one that cannot be kept is not remembered.
    await this.#running?.setEgress(policy)
    this.#egress = policy
    // One that was made meanwhile was made with the policy before.
    if (this.#running === undefined) this.#hasNewEgress = true
  }

  /** Whether its sandbox was made anew: what it runs first is the startup command. */
  get restarted(): boolean {
    return this.#restarted
  }

  get #isEnding(): boolean {
    return this.#ending !== undefined || this.#finishing !== undefined || this.#detached
  }

  get #scriptRuns(): boolean {
    return this.#scriptExit === undefined && !this.#restarted
  }

  async #giveBack(lease: SandboxLease): Promise<void> {
    await lease.release().catch((error: unknown) => this.#warn(error, 'a sandbox could not be given back'))
    this.#workspace?.leave()
  }

  #storeTaken(lease: SandboxLease): Promise<boolean> {
    if (this.#ending || this.#detached) return Promise.resolve(false)
    this.#waiting = false
    const { queueMs, acquireMs } = this.timings
    return this.#deps.store.markRunning(this.requestId, {
      vmId: lease.sandboxId,
      isolation: lease.isolation,
      queueMs: queueMs ?? 0,
      acquireMs: acquireMs ?? 0,
      startedAt: timestamp(this.#deps.clock()),
    })
  }

  #storeTimings(timings: JobTimings): void {
    if (!this.persistent) return
    this.#deps.store.setTimings(this.requestId, timings).catch((error: unknown) => this.#warn(error, 'the timings of a job could not be stored'))
  }

  #armDeadline(seconds: number, delayMs: number): void {
    this.#cancelDeadline = setLongTimeout(() => {
      if (this.#ending || this.#scriptExit) return
      this.#ending = { kind: 'timeout', seconds }
      void this.log.system(timeoutWords(seconds), 'error')
      void this.sleep.end().then(() => this.#running && this.#terminate(this.#running, this.#deps.timeoutGraceMs))
    }, delayMs)
  }

  async #watch(running: RunningSandbox): Promise<void> {
    const exit = await running.exited
    if (running !== this.#running || this.sleep.isDeepening) return
    if (exit.kind === 'sandbox-lost' && !this.#isEnding && (await this.sleep.lost(running))) return
    await this.#settle(exit, running)
  }

  /** A wake made another sandbox, or it was given back. */
  #replace(running: RunningSandbox | undefined): void {
    this.#running = running
    this.#restarted = true
    this.#cancelDeadline()
    if (running === undefined) return
    this.#catchUpEgress(running)
    this.#egressWatch.watch(running)
    this.#watchRestarted(running)
  }

  /** A policy that came while this sandbox was being made. */
  #catchUpEgress(running: RunningSandbox): void {
    if (!this.#hasNewEgress || this.#egress === undefined) return
    this.#hasNewEgress = false
    running.setEgress(this.#egress).catch((error: unknown) => void this.fail(`egress: ${wordsOf(error)}`))
  }

  /** The startup command may end: the job does not with it. */
  #watchRestarted(running: RunningSandbox): void {
    void running.exited.then(async ({ kind, exitCode, reason }) => {
      if (running !== this.#running || this.#isEnding || kind === 'sandbox-lost' || (kind === 'exited' && exitCode === 0)) return
      await this.log.system(reason ?? `the startup command ended with exit code ${exitCode}`, 'error')
    })
    this.#watchSandbox(running)
  }

  async #settle(exit: ScriptExit, running: RunningSandbox): Promise<void> {
    if (this.#detached || this.#scriptExit) return
    this.#scriptExit = exit
    this.uses.touch()
    this.#cancelDeadline()
    this.#start.scriptEnded()
    const lives = this.persistent && this.#ending === undefined && (exit.kind === 'exited' || exit.kind === 'signalled')
    if (!lives) return await this.#finish(judge(exit, this.#ending))
    if (exit.reason !== undefined) await this.log.system(exit.reason, 'error')
    await this.log.flush()
    await this.#store(() => this.#deps.store.setScriptExit(this.requestId, exit.exitCode, this.timings))
    await this.log.markScriptExit(exit.exitCode)
    this.#watchSandbox(running)
  }

  #watchSandbox(running: RunningSandbox): void {
    void running.gone.then(async () => {
      if (this.#detached || this.#ending || running !== this.#running || (await this.sleep.lost(running))) return
      const error = 'the sandbox was lost'
      await this.#finish({ status: 'error', exitCode: this.#scriptExit?.exitCode ?? null, error, row: error })
    })
  }

  async #stop(): Promise<void> {
    if (this.#finishing) return await this.#finishing
    this.#ending ??= { kind: 'stop' }
    this.#abort.abort(new MagsError('job_not_running', 'the job was stopped'))
    const reachable = await this.sleep.end()
    const running = reachable ? this.#running : undefined
    const scriptRan = this.#scriptRuns
    if (running !== undefined && (scriptRan || this.#restarted)) await this.#terminate(running, this.#deps.stopGraceMs)
    if (running === undefined || !scriptRan) await this.#finish({ status: 'stopped', exitCode: this.#scriptExit?.exitCode ?? null, error: null })
    await this.done
  }

  /** Ends its script, or its startup command. */
  async #terminate(running: RunningSandbox, graceMs: number): Promise<void> {
    const keepsSandbox = this.#workspace !== undefined
    const seen = await terminateScript(running, { graceMs, keepsSandbox, warn: (error, words) => this.#warn(error, words) })
    if (!seen && !this.#restarted) await this.#settle({ kind: 'sandbox-lost', exitCode: 137 }, running)
  }

  #finish(verdict: Verdict): Promise<void> {
    this.#finishing ??= this.#finishNow(verdict)
    return this.#finishing
  }

  async #finishNow(verdict: Verdict): Promise<void> {
    this.#cancelDeadline()
    this.uses.end()
    await this.sleep.end()
    if (verdict.row !== undefined) await this.log.system(verdict.row, 'error')
    const unsaved = await this.#workspace?.finish({ stopping: this.#ending?.kind === 'stop' || this.#ending?.kind === 'shutdown' })
    if (unsaved !== undefined) await this.log.system(unsaved, 'error')
    const { status, exitCode, error } = unsaved === undefined ? verdict : withUnsaved(verdict, unsaved)
    await this.#egressWatch.finish()
    await this.log.flush()
    const lost = this.log.fault && `output was lost: ${this.log.fault.message}`
    if (lost !== undefined) this.#warn(this.log.fault, 'the log of a job could not be written')
    const outcome = { status, exitCode, error: error ?? lost ?? null, timings: this.timings, completedAt: timestamp(this.#deps.clock()) }
    await this.#store(() => this.#deps.store.finish(this.requestId, outcome))
    this.#deps.metrics.finished(status, outcome.timings.startMs)
    await this.log.end({ status, exitCode }).catch((fault: unknown) => this.#warn(fault, 'the log of a job could not be closed'))
    this.#deps.logs.release(this.requestId)
    this.#done.resolve()
    this.#destroy()
  }

  #destroy(): void {
    // Released, it has none.
    if (this.#running === undefined && this.uses.hasBegun) this.#workspace?.leave()
    this.#running
      ?.destroy()
      .catch((error: unknown) => this.#warn(error, 'a sandbox could not be destroyed'))
      .finally(() => this.#workspace?.leave())
  }

  #store(write: () => Promise<boolean>): Promise<void> {
    return storeSurely(write, (error) => this.#warn(error, 'the state of a job could not be stored'))
  }

  #failure(error: unknown): Verdict {
    if (!(error instanceof MagsError)) this.#deps.logger.error({ err: error, requestId: this.requestId }, 'a job failed for an unknown reason')
    return failed(wordsOf(error))
  }

  #warn(error: unknown, words: string): void {
    this.#deps.logger.warn({ err: error, requestId: this.requestId }, words)
  }
}

const ended = () => new MagsError('job_not_running', 'the job is ending')
