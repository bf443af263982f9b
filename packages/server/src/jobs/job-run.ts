import { setTimeout as delay } from 'node:timers/promises'
import {
  type ExecRequest,
  type HostApi,
  MagsError,
  type RunningSandbox,
  type SandboxFiles,
  type SandboxLease,
  type ScriptExit,
  type ScriptSpec,
  type WorkspaceSaved,
} from '@mags/protocol'
import type { Logger } from 'pino'
import type { JobMetrics } from '../health/metrics.ts'
import type { JobLog } from '../logs/job-log.ts'
import type { LogStore } from '../logs/log-store.ts'
import { timestamp } from '../state/timestamp.ts'
import { JobWorkspace, type JobWorkspaceDeps } from '../workspaces/job-workspace.ts'
import { type Job, type JobTimings, sandboxSpecOf } from './job.ts'
import type { JobFiles } from './job-files.ts'
import { type Ending, judge, timeoutWords, type Verdict, withUnsaved } from './job-outcome.ts'
import { setLongTimeout } from './set-long-timeout.ts'
import { settlesWithin } from './settles-within.ts'
import { StartClock } from './start-clock.ts'
import type { JobStore } from './store.ts'
import { tellProgress } from './tell-progress.ts'

export interface JobRunDeps {
  readonly store: JobStore
  readonly host: HostApi
  readonly logs: LogStore
  readonly clock: () => number
  readonly logger: Logger
  readonly metrics: JobMetrics
  /** How workspaces are saved. */
  readonly saving: JobWorkspaceDeps
  /** Absent: jobs cannot have uploaded files. */
  readonly files?: JobFiles
  /** From SIGTERM to the end of the sandbox, after a stop. */
  readonly stopGraceMs: number
  /** The same after a timeout. */
  readonly timeoutGraceMs: number
}

/** How long a destroyed sandbox may take to report its script's end. */
const lastWordsMs = 2000
const storeRetryDelaysMs = [100, 1000, 5000]

/**
 * One job from its row to its end.
 *
 *     waiting ──take──► taking ──► taken ──execute──► starting ──► running ──► finished
 *                                                     adopt ─────────►│  ▲
 *                                           (persistent, script ended) └──┘ resting
 *
 * `stop`, a timeout, a failure and a lost sandbox lead to `finished` from anywhere; whichever is first decides. In `finished` the log and the status are
 * stored, followers are told, and the sandbox is destroyed in the background. A workspace is saved before the status is stored. `detach` (the server goes, the job stays) leaves row and sandbox as they are.
 */
export class JobRun {
  readonly requestId: string
  readonly accountId: string
  readonly persistent: boolean
  readonly log: JobLog
  readonly #deps: JobRunDeps
  readonly #clock: StartClock
  readonly #abort = new AbortController()
  readonly #done = Promise.withResolvers<void>()
  readonly #environment: Readonly<Record<string, string>>
  readonly #workspace: JobWorkspace | undefined
  #running: RunningSandbox | undefined
  #scriptExit: ScriptExit | undefined
  #outputSeen = false
  #ending: Ending | undefined
  #finishing: Promise<void> | undefined
  #stopping: Promise<void> | undefined
  #cancelDeadline: () => void = () => undefined
  #detached = false
  #waiting = true

  /** `acceptedAt` is a reading of `performance.now()`. */
  constructor(deps: JobRunDeps, job: Job, acceptedAt: number) {
    this.#deps = deps
    this.#clock = new StartClock(acceptedAt)
    this.requestId = job.requestId
    this.accountId = job.accountId
    this.persistent = job.persistent
    this.#environment = job.environment
    this.log = deps.logs.create(job.requestId, () => this.#onFirstOutput())
    if (job.workspaceId !== null && job.workspaceStorageId !== null) {
      const { requestId, workspaceId, workspaceStorageId: storageId } = job
      this.#workspace = new JobWorkspace(deps.saving, { requestId, workspaceId, storageId, log: this.log, onFenced: (words) => void this.fail(words) })
    }
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
    return this.#clock.timings
  }

  /** Takes a sandbox and stores that; undefined when the job ended instead. */
  async take(job: Job): Promise<SandboxLease | undefined> {
    const lease = await this.#take(job)
    if (lease === undefined) this.#workspace?.leave()
    return lease
  }

  async #take(job: Job): Promise<SandboxLease | undefined> {
    this.#clock.end('queueMs')
    // Ready by the time the first output comes; a failure shows at the first write.
    this.log.open().catch(() => undefined)
    try {
      await this.#workspace?.enter(this.#abort.signal)
      const lease = await this.#deps.host.acquire(sandboxSpecOf(job), this.#abort.signal, tellProgress(this.log))
      this.#clock.end('acquireMs')
      const stored = await this.#storeTaken(lease).catch(async (error: unknown) => {
        await lease.release()
        throw error
      })
      if (stored) return lease
      await lease.release()
      if (this.#ending === undefined && !this.#detached)
        throw new MagsError('internal', 'the job is not pending any more; another server may use the same database')
    } catch (error) {
      if (this.#ending === undefined && !this.#detached) await this.#finish(this.#failure(error))
    }
    return undefined
  }

  /** Runs the script in the sandbox taken. Settles when the script has ended. */
  async execute(job: Job, lease: SandboxLease): Promise<void> {
    if (this.#ending) return await this.#giveBack(lease)
    let script: ScriptSpec = { script: job.script, environment: job.environment }
    if (job.fileIds.length > 0) {
      try {
        script = { ...script, files: await this.#openFiles(job) }
      } catch (error) {
        await this.#giveBack(lease)
        return await this.#finish(this.#failure(error))
      }
      if (this.#ending) return await this.#giveBack(lease)
    }
    try {
      this.#running = await lease.run(script, this.log.sink)
    } catch (error) {
      this.#workspace?.leave()
      if (!this.#detached) await this.#finish(this.#failure(error))
      return
    }
    if (this.#detached) return
    this.#clock.end('attachMs')
    if (this.#outputSeen) this.#clock.end('firstByteMs')
    if (this.persistent) this.#storeTimings()
    if (job.timeoutSeconds !== null) this.#armDeadline(job.timeoutSeconds, job.timeoutSeconds * 1000)
    if (!this.#finishing) this.#workspace?.watch(this.#running)
    await this.#watch(this.#running)
  }

  /** Goes on with a sandbox of a former process. */
  async adopt(job: Job, running: RunningSandbox): Promise<void> {
    this.#waiting = false
    this.#running = running
    this.#workspace?.watch(running)
    await this.#workspace?.enter()
    if (job.exitCode !== null) {
      this.#scriptExit = { kind: 'exited', exitCode: job.exitCode }
      await this.log.markScriptExit(job.exitCode)
      return this.#watchSandbox(running)
    }
    if (job.timeoutSeconds !== null && job.startedAt !== null) {
      const spentMs = Math.max(0, this.#deps.clock() - Date.parse(job.startedAt))
      this.#armDeadline(job.timeoutSeconds, Math.max(0, job.timeoutSeconds * 1000 - spentMs))
    }
    await this.#watch(running)
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
    await this.#finish({ status: 'error', exitCode: null, error: reason, row: reason })
  }

  /** Leaves the job as it is stored, for the next process. */
  async detach(): Promise<void> {
    if (this.#finishing) {
      this.#workspace?.hurry()
      return await this.#finishing
    }
    this.#detached = true
    this.#cancelDeadline()
    this.#abort.abort(new MagsError('no_capacity', 'the server is shutting down'))
    await this.#workspace?.pause()
    await this.log.close()
    this.#done.resolve()
  }

  /** Saves its workspace now. Rejects with MagsError 'bad_request' when it has none, 'job_not_running', and as `RunningSandbox.saveWorkspace`. */
  async sync(): Promise<WorkspaceSaved & { readonly workspaceId: string }> {
    if (this.#workspace === undefined) throw new MagsError('bad_request', 'the job has no workspace')
    this.#checkRunning()
    return { ...(await this.#workspace.sync()), workspaceId: this.#workspace.workspaceId }
  }

  /** Files of the sandbox. Throws MagsError('job_not_running') when there is none. */
  files(): SandboxFiles {
    return this.#checkRunning().files
  }

  /** One more program in the sandbox. Rejects with MagsError('job_not_running') when there is none. */
  async exec(
    request: ExecRequest,
    onOutput: (source: 'stdout' | 'stderr', bytes: Uint8Array) => Promise<void> | void,
    abort: AbortSignal,
  ): Promise<ScriptExit & { timedOut: boolean }> {
    const running = this.#checkRunning()
    return await running.exec({ ...request, environment: { ...this.#environment, ...request.environment } }, onOutput, abort)
  }

  #checkRunning(): RunningSandbox {
    if (this.#running === undefined) throw new MagsError('job_not_running', 'the job has not started yet; try again once its status is running')
    if (this.#ending || this.#finishing) throw new MagsError('job_not_running', 'the job is ending')
    return this.#running
  }

  async #openFiles(job: Job) {
    if (this.#deps.files === undefined) throw new MagsError('not_available', 'this server does not do uploaded files')
    return await this.#deps.files.open(job.accountId, job.fileIds)
  }

  async #giveBack(lease: SandboxLease): Promise<void> {
    await lease.release().catch((error: unknown) => this.#warn(error, 'a sandbox could not be given back'))
    this.#workspace?.leave()
  }

  #storeTaken(lease: SandboxLease): Promise<boolean> {
    if (this.#ending || this.#detached) return Promise.resolve(false)
    this.#waiting = false
    const { queueMs, acquireMs } = this.#clock.timings
    return this.#deps.store.markRunning(this.requestId, {
      vmId: lease.sandboxId,
      isolation: lease.isolation,
      queueMs: queueMs ?? 0,
      acquireMs: acquireMs ?? 0,
      startedAt: timestamp(this.#deps.clock()),
    })
  }

  #onFirstOutput(): void {
    this.#outputSeen = true
    // Output may be here before the call that started the script has returned: then the step before is not over yet.
    if (this.#clock.timings.attachMs === null) return
    this.#clock.end('firstByteMs')
    if (this.persistent) this.#storeTimings()
  }

  #storeTimings(): void {
    this.#deps.store.setTimings(this.requestId, this.#clock.timings).catch((error: unknown) => this.#warn(error, 'the timings of a job could not be stored'))
  }

  #armDeadline(seconds: number, delayMs: number): void {
    this.#cancelDeadline = setLongTimeout(() => {
      if (this.#ending || this.#scriptExit) return
      this.#ending = { kind: 'timeout', seconds }
      void this.log.system(timeoutWords(seconds), 'error')
      void this.#terminate(this.#deps.timeoutGraceMs)
    }, delayMs)
  }

  async #watch(running: RunningSandbox): Promise<void> {
    // A stop or the end of the server came while the script was being started.
    if (this.#finishing) return this.#destroy()
    await this.#settle(await running.exited, running)
  }

  async #settle(exit: ScriptExit, running: RunningSandbox): Promise<void> {
    if (this.#detached || this.#scriptExit) return
    this.#scriptExit = exit
    this.#cancelDeadline()
    this.#clock.endScript()
    this.#clock.end('firstByteMs')
    const lives = this.persistent && this.#ending === undefined && (exit.kind === 'exited' || exit.kind === 'signalled')
    if (!lives) return await this.#finish(judge(exit, this.#ending))
    if (exit.reason !== undefined) await this.log.system(exit.reason, 'error')
    await this.log.flush()
    await this.#store(() => this.#deps.store.setScriptExit(this.requestId, exit.exitCode, this.#clock.timings))
    await this.log.markScriptExit(exit.exitCode)
    this.#watchSandbox(running)
  }

  #watchSandbox(running: RunningSandbox): void {
    void running.gone.then(async () => {
      if (this.#detached || this.#ending) return
      const error = 'the sandbox was lost'
      await this.#finish({ status: 'error', exitCode: this.#scriptExit?.exitCode ?? null, error, row: error })
    })
  }

  async #stop(): Promise<void> {
    if (this.#finishing) return await this.#finishing
    this.#ending ??= { kind: 'stop' }
    const resting = this.persistent && this.#scriptExit !== undefined
    if (this.#running !== undefined && !resting) {
      await this.#terminate(this.#deps.stopGraceMs)
    } else {
      this.#abort.abort(new MagsError('job_not_running', 'the job was stopped'))
      await this.#finish({ status: 'stopped', exitCode: this.#scriptExit?.exitCode ?? null, error: null })
    }
    await this.done
  }

  /** SIGTERM to the script's processes, and after `graceMs` the end of the sandbox. */
  async #terminate(graceMs: number): Promise<void> {
    const running = this.#running
    if (running === undefined) return
    running.signal(15).catch((error: unknown) => this.#warn(error, 'a script could not be signalled'))
    if (await settlesWithin(running.exited, graceMs)) return
    // With a workspace the last save ends its processes, and the sandbox goes after it.
    if (this.#workspace === undefined) {
      await running.destroy().catch((error: unknown) => this.#warn(error, 'a sandbox could not be destroyed'))
      if (await settlesWithin(running.exited, lastWordsMs)) return
    }
    await this.#settle({ kind: 'sandbox-lost', exitCode: 137 }, running)
  }

  #finish(verdict: Verdict): Promise<void> {
    this.#finishing ??= this.#finishNow(verdict)
    return this.#finishing
  }

  async #finishNow(verdict: Verdict): Promise<void> {
    this.#cancelDeadline()
    if (verdict.row !== undefined) await this.log.system(verdict.row, 'error')
    const unsaved = await this.#workspace?.finish({ stopping: this.#ending?.kind === 'stop' || this.#ending?.kind === 'shutdown' })
    if (unsaved !== undefined) await this.log.system(unsaved, 'error')
    const { status, exitCode, error } = unsaved === undefined ? verdict : withUnsaved(verdict, unsaved)
    await this.log.flush()
    const lost = this.log.fault && `output was lost: ${this.log.fault.message}`
    if (lost !== undefined) this.#warn(this.log.fault, 'the log of a job could not be written')
    const outcome = { status, exitCode, error: error ?? lost ?? null, timings: this.#clock.timings, completedAt: timestamp(this.#deps.clock()) }
    await this.#store(() => this.#deps.store.finish(this.requestId, outcome))
    this.#deps.metrics.finished(status, outcome.timings.startMs)
    await this.log.end({ status, exitCode }).catch((fault: unknown) => this.#warn(fault, 'the log of a job could not be closed'))
    this.#deps.logs.release(this.requestId)
    this.#done.resolve()
    this.#destroy()
  }

  #destroy(): void {
    this.#running
      ?.destroy()
      .catch((error: unknown) => this.#warn(error, 'a sandbox could not be destroyed'))
      .finally(() => this.#workspace?.leave())
  }

  /** A short fault of the database must not leave a job behind that never ends; a long one is for recovery at the next start. */
  async #store(write: () => Promise<boolean>): Promise<void> {
    for (const delayMs of [...storeRetryDelaysMs, undefined]) {
      try {
        await write()
        return
      } catch (error) {
        this.#warn(error, 'the state of a job could not be stored')
        if (delayMs !== undefined) await delay(delayMs)
      }
    }
  }

  #failure(error: unknown): Verdict {
    if (!(error instanceof MagsError)) this.#deps.logger.error({ err: error, requestId: this.requestId }, 'a job failed for an unknown reason')
    const words = error instanceof Error ? error.message : String(error)
    return { status: 'error', exitCode: null, error: words, row: words }
  }

  #warn(error: unknown, words: string): void {
    this.#deps.logger.warn({ err: error, requestId: this.requestId }, words)
  }
}
