import { MagsError, type RunningSandbox, type WorkspaceSaved } from '@mags/protocol'
import type { Logger } from 'pino'
import type { WorkspaceMetrics } from '../health/metrics.ts'
import type { JobLog } from '../logs/job-log.ts'
import { timestamp } from '../state/timestamp.ts'
import { backoffMs } from './backoff.ts'
import { type LeftSaver, mayWorkLater, wordsOf } from './save-left.ts'
import type { WorkspaceStore } from './store.ts'
import type { Timers } from './timers.ts'
import type { Turns } from './turns.ts'

export interface JobWorkspaceDeps {
  readonly workspaces: WorkspaceStore
  readonly turns: Turns
  readonly left: LeftSaver
  readonly timers: Timers
  readonly clock: () => number
  readonly logger: Logger
  readonly metrics: WorkspaceMetrics
  /** Between two saves of a running job. */
  readonly syncIntervalMs: number
  /** How long the end of a job waits for its workspace to be saved. */
  readonly saveWaitMs: number
  /** The same after a stop, and when the server ends. */
  readonly stopSaveWaitMs: number
}

const backoff = { firstMs: 1000, longestMs: 60_000 }
const tellAfterMs = 1000

/**
 * The workspace of one job, from taking it to giving it back.
 *
 *     new ──enter──► entered ──watch──► watched ──finish──► finished ──leave──► left
 *                       └───────────────leave (no sandbox came of it)─────────────┘
 *
 *     watched ◄──rest, wake──► resting ──release (the job goes on without a sandbox)──► entered
 *
 * `watched`: saved every `syncIntervalMs` and on `sync`; after a failure sooner and then ever more seldom, until it works again. `resting`: its sandbox sleeps, so there is nothing new to save. `pause` ends
 * saving for good and leaves everything as it is, for the next process. One save at a time. That somebody has taken the workspace over is told through `onFenced`.
 */
export class JobWorkspace {
  readonly workspaceId: string
  readonly #deps: JobWorkspaceDeps
  readonly #requestId: string
  readonly #storageId: string
  readonly #log: JobLog
  readonly #onFenced: (words: string) => void
  readonly #endWatch = new AbortController()
  /** Of the waits between saves; made anew with each stretch of them. */
  #endLoop = new AbortController()
  #resting = false
  #lastSaved: WorkspaceSaved | undefined
  readonly #hurry = new AbortController()
  #running: RunningSandbox | undefined
  #endTurn: (() => void) | undefined
  #over = false
  /** The last save asked for; never rejects. */
  #last: Promise<unknown> = Promise.resolve()
  /** One that waits for the one under way: everybody who asks meanwhile shares it. */
  #next: Promise<WorkspaceSaved> | undefined
  #failing = false
  /** A row said that saving takes long or does not work. */
  #told = false
  #fenced = false
  /** Nothing is left to be saved, or there is no use in trying. */
  #settled = false

  constructor(
    deps: JobWorkspaceDeps,
    job: {
      readonly requestId: string
      readonly workspaceId: string
      readonly storageId: string
      readonly log: JobLog
      readonly onFenced: (words: string) => void
    },
  ) {
    this.#deps = deps
    this.#requestId = job.requestId
    this.workspaceId = job.workspaceId
    this.#storageId = job.storageId
    this.#log = job.log
    this.#onFenced = job.onFenced
  }

  /** Whether `enter` would have to wait. */
  get isBusy(): boolean {
    return this.#deps.turns.isTaken(this.#storageId)
  }

  /** Waits until nothing in this server works on it any more: the sandbox of the job before, saving what that left, a restore. Rejects with the reason of `abort`. */
  async enter(abort?: AbortSignal): Promise<void> {
    const endTurn = await this.#deps.turns.take(this.#storageId, abort)
    if (this.#over) return endTurn()
    this.#endTurn = endTurn
  }

  /** The sandbox has it now; `asleep`: and sleeps. */
  watch(running: RunningSandbox, { asleep = false } = {}): void {
    this.#running = running
    this.#settled = false
    this.#resting = asleep
    if (!asleep) this.#startLoop()
  }

  /** Saves it, and nothing more until `wake`. Rejects as `RunningSandbox.saveWorkspace`. */
  async rest(): Promise<void> {
    await this.sync()
    this.#resting = true
    this.#endLoop.abort()
    // One more may have begun meanwhile; those after it do nothing.
    await this.#last
  }

  /** The sandbox runs on. */
  wake(): void {
    if (!this.#resting) return
    this.#resting = false
    if (this.#running !== undefined && !this.#endWatch.signal.aborted) this.#startLoop()
  }

  /** The last save of a sandbox that is to be given back while the job goes on; afterwards nothing runs in it. False when something of it would be lost, or somebody else has the workspace. */
  async release(): Promise<boolean> {
    try {
      await this.#enqueue({ final: true, note: true })
      this.#settled = true
    } catch {
      // What is kept on this machine is where the next sandbox goes on.
      if (this.#fenced || !((await this.#running?.keepsUnsaved().catch(() => false)) ?? false)) return false
    }
    this.drop()
    return true
  }

  /** Its sandbox is gone, or will be without another save, and the job goes on. */
  drop(): void {
    this.#endLoop.abort()
    this.#running = undefined
    this.#resting = true
  }

  /** Saves it now. Waits for a save under way, which may have missed the latest changes. Rejects as `RunningSandbox.saveWorkspace`. */
  sync(): Promise<WorkspaceSaved> {
    this.#next ??= this.#enqueue({ final: false, note: true })
    return this.#next
  }

  /** The last save, after which nothing runs in the sandbox. Words of what went wrong when it was not possible; the changes are kept then. */
  async finish({ stopping }: { readonly stopping: boolean }): Promise<string | undefined> {
    this.#endWatch.abort()
    if (this.#running === undefined || this.#fenced) return undefined
    const { timers, saveWaitMs, stopSaveWaitMs } = this.#deps
    const waitMs = stopping ? stopSaveWaitMs : saveWaitMs
    const end = new AbortController()
    const over = Promise.race([
      timers.wait(waitMs, end.signal).then(() => inSeconds(waitMs)),
      this.#hurried(end.signal).then((waitedMs) => `${inSeconds(waitedMs)} while the server ends`),
    ]).catch(() => '')
    timers.wait(tellAfterMs, end.signal).then(
      () => {
        this.#told = true
        return this.#log.system(`saving workspace '${this.workspaceId}'`, 'info')
      },
      () => undefined,
    )
    try {
      for (let failures = 1; ; failures++) {
        const attempt = this.#enqueue({ final: true, note: true }).then(
          (saved) => ({ saved }),
          (error: unknown) => ({ error }),
        )
        const result = await Promise.race([attempt, over.then((within) => ({ within }))])
        if ('saved' in result) return await this.#tellSaved(result.saved)
        if ('within' in result) return await this.#giveUp(`could not be saved within ${result.within}`, true)
        if (!isUnavailable(result.error))
          return await this.#giveUp(`could not be saved: ${wordsOf(result.error)}`, mayWorkLater(result.error), !isFenced(result.error))
        const waited = await Promise.race([timers.wait(backoffMs(failures, timers.random, backoff), end.signal), over])
        if (waited !== undefined) return await this.#giveUp(`could not be saved within ${waited}`, true)
      }
    } finally {
      end.abort()
    }
  }

  /** The server ends: `finish` waits no longer than after a stop. */
  hurry(): void {
    this.#hurry.abort()
  }

  /** No more saves by this process; settles when none is under way, but after `stopSaveWaitMs` at the latest. */
  async pause(): Promise<void> {
    this.#endWatch.abort()
    const end = new AbortController()
    await Promise.race([this.#last, this.#deps.timers.wait(this.#deps.stopSaveWaitMs, end.signal).catch(() => undefined)])
    end.abort()
  }

  /** The sandbox is gone, or there was none: the next one may have the workspace. What is not saved then, of this job or the one before, is left to the background. Idempotent. */
  leave(): void {
    this.#over = true
    this.#endTurn?.()
    this.#endTurn = undefined
    if (this.#settled) return
    this.#settled = true
    this.#deps.left.add(this.#storageId)
  }

  #startLoop(): void {
    this.#endLoop = new AbortController()
    void this.#watch(AbortSignal.any([this.#endWatch.signal, this.#endLoop.signal]))
  }

  async #watch(signal: AbortSignal): Promise<void> {
    const { timers, syncIntervalMs } = this.#deps
    for (let failures = 0; ; ) {
      const waitMs = failures === 0 ? syncIntervalMs : backoffMs(failures, timers.random, backoff)
      try {
        await timers.wait(waitMs, signal)
      } catch {
        return
      }
      try {
        await this.#enqueue({ final: false, note: false })
        failures = 0
      } catch {
        failures++
      }
    }
  }

  #enqueue(options: { readonly final: boolean; readonly note: boolean }): Promise<WorkspaceSaved> {
    const save = this.#last.then(() => {
      this.#next = undefined
      return this.#save(options)
    })
    this.#last = save.catch(() => undefined)
    return save
  }

  /** `note`: also when nothing had changed, to say until when everything is known to be saved. */
  async #save({ final, note }: { readonly final: boolean; readonly note: boolean }): Promise<WorkspaceSaved> {
    const { metrics } = this.#deps
    if (this.#resting && !final && this.#lastSaved !== undefined) return { ...this.#lastSaved, changed: false }
    if (this.#running === undefined) throw new MagsError('job_not_running', 'the job has not started yet; try again once its status is running')
    const startedAt = performance.now()
    try {
      const saved = await this.#running.saveWorkspace({ final })
      this.#lastSaved = saved
      metrics.saved(saved.changed, (performance.now() - startedAt) / 1000, uploadedBy(saved))
      if (saved.changed || note || this.#failing) await this.#noteSaved(saved, final)
      return saved
    } catch (error) {
      metrics.saveFailed()
      await this.#noteFailure(error, !final || isUnavailable(error))
      throw error
    }
  }

  async #noteSaved(saved: WorkspaceSaved, final: boolean): Promise<void> {
    const { workspaces, clock } = this.#deps
    const at = { now: timestamp(clock()), requestId: this.#requestId, uploadedBytes: uploadedBy(saved) }
    // It is durable already; the database hears of it again with the next save, or at the next start.
    await workspaces.recordSaved(this.#storageId, saved.version, at).catch((error: unknown) => this.#warn(error, 'a saved version could not be noted'))
    if (!this.#failing) return
    this.#failing = false
    // The end of the job has a row of its own.
    if (!final || !saved.changed) await this.#log.system(`workspace '${this.workspaceId}' is saved again (version ${saved.version.version})`, 'info')
  }

  async #noteFailure(error: unknown, triedAgain: boolean): Promise<void> {
    const words = wordsOf(error)
    if (isFenced(error)) {
      this.#fenced = true
      this.#settled = true
      if (!this.#endWatch.signal.aborted) this.#onFenced(words)
      this.#endWatch.abort()
      return
    }
    // On a full disk that would be tried, and said, for as long as it is full.
    if (this.#failing && isFull(error)) return
    this.#warn(error, 'a workspace could not be saved')
    // There is no use in going on: what it writes from now on could not be saved, either.
    if (isLost(error) && !this.#endWatch.signal.aborted) this.#onFenced(words)
    await this.#recordUnsaved(words)
    if (this.#failing || !triedAgain) return
    this.#failing = true
    this.#told = true
    await this.#log.system(`workspace '${this.workspaceId}' cannot be saved at the moment: ${words}; its changes are kept, and saving is tried again`, 'error')
  }

  async #recordUnsaved(words: string): Promise<void> {
    const { workspaces, clock } = this.#deps
    await workspaces
      .recordUnsaved(this.#storageId, timestamp(clock()), words)
      .catch((error: unknown) => this.#warn(error, 'that a workspace is not saved could not be noted'))
  }

  async #tellSaved({ changed, version, skippedCount }: WorkspaceSaved): Promise<undefined> {
    this.#settled = true
    const words = changed ? `saved as version ${version.version}` : `unchanged, still version ${version.version}`
    const skipped = skippedCount === 0 ? '' : `; ${skippedCount.toLocaleString('en-US')} device nodes are not kept`
    // A save that went as it should is in the status; a row is for who has been kept waiting.
    if (this.#told || skippedCount > 0) await this.#log.system(`workspace '${this.workspaceId}' is ${words}${skipped}`, 'info')
    return undefined
  }

  /** `ours`: nobody has taken the workspace over. */
  async #giveUp(what: string, later: boolean, ours = true): Promise<string> {
    const kept = (await this.#running?.keepsUnsaved().catch(() => true)) ?? true
    // Of what is lost the background notes that nothing is left to be saved.
    this.#settled = kept && !later
    if (ours) await this.#recordUnsaved(what)
    if (!kept) return `workspace '${this.workspaceId}' ${what}; what changed since it was saved last is lost`
    return `workspace '${this.workspaceId}' ${what}; its changes are kept on this machine${later ? ' and saved later' : ''}`
  }

  async #hurried(end: AbortSignal): Promise<number> {
    const { timers, stopSaveWaitMs } = this.#deps
    if (!this.#hurry.signal.aborted) {
      await new Promise<void>((resolve, reject) => {
        this.#hurry.signal.addEventListener('abort', () => resolve(), { once: true, signal: end })
        end.addEventListener('abort', () => reject(end.reason), { once: true })
      })
    }
    await timers.wait(stopSaveWaitMs, end)
    return stopSaveWaitMs
  }

  #warn(error: unknown, words: string): void {
    this.#deps.logger.warn({ err: error, requestId: this.#requestId, storageId: this.#storageId }, words)
  }
}

const uploadedBy = (saved: WorkspaceSaved) => (saved.changed ? saved.version.uploadedBytes : 0)
const isFull = (error: unknown) => error instanceof MagsError && error.code === 'storage_full'
const isUnavailable = (error: unknown) => isFull(error) || (error instanceof MagsError && error.code === 'object_store_unavailable')
const isLost = (error: unknown) => error instanceof MagsError && error.code === 'workspace_damaged' && error.details?.lost === true
const isFenced = (error: unknown) => error instanceof MagsError && error.code === 'workspace_fenced'
const inSeconds = (ms: number) => `${Math.round(ms / 100) / 10} s`
