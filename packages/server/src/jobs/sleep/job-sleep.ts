import { MagsError, type RunningSandbox, type SleepStage } from '@mags/protocol'
import type { Logger } from 'pino'
import type { JobLog } from '../../logs/job-log.ts'
import { timestamp } from '../../state/timestamp.ts'
import type { JobWorkspace } from '../../workspaces/job-workspace.ts'
import type { Timers } from '../../workspaces/timers.ts'
import type { JobStore } from '../store.ts'

export interface JobSleepDeps {
  readonly store: JobStore
  readonly clock: () => number
  readonly timers: Timers
  readonly logger: Logger
  /** How long the end of the server waits for a change under way. */
  readonly leaveWaitMs: number
}

/** The job as its sleep sees it. */
export interface Sleeper {
  readonly requestId: string
  readonly log: JobLog
  readonly workspace: JobWorkspace | undefined
  /** The sandbox it has. */
  sandbox(): RunningSandbox | undefined
  /** It has another one now, or none. */
  replace(running: RunningSandbox | undefined): void
  /** Whether something uses it, or waits for it. */
  isUsed(): boolean
  /** It was put to sleep. */
  fellAsleep(): void
  /** It is about to be woken. Throws what forbids it. */
  wakes(): void
  /** A new sandbox, made from its workspace. */
  restart(abort: AbortSignal): Promise<RunningSandbox>
}

/** A wake that was needed. */
export interface Woken {
  readonly durationMs: number
}

/**
 * How a job sleeps and wakes.
 *
 *     awake ──fallAsleep──► saving ──► freezing ──► asleep (frozen) ◄──► deepening ──► asleep (hibernated, released)
 *       ▲                     │            │          │                                        │
 *       ├── used, not saved ──┘── failed ──┘          └───────────────── wake ─────────────────┤
 *       └───────────────────────────────── waking ◄────────────────────────────────────────────┘
 *                                             └── failed ──► asleep
 *
 * One change at a time, in the order they were asked for; all who wait for a wake share one. Somebody who comes while the workspace is being saved ends falling asleep at once, later it is done and then
 * undone. `end` and `leave` win: what is under way comes to its end or is broken off, and nothing is begun any more.
 *
 * Stored is `sleeping` after the freeze and `running` after the wake: after a crash in between the next process takes a frozen sandbox for an awake one, or puts it to sleep again. `released` is stored once the
 * workspace has everything, and before the sandbox goes; a new sandbox counts from the moment `running` is stored with it, one that was made before that goes with the process.
 */
export class JobSleep {
  readonly #deps: JobSleepDeps
  readonly #job: Sleeper
  readonly #abort = new AbortController()
  #state: 'awake' | 'saving' | 'freezing' | 'asleep' | 'deepening' | 'waking' = 'awake'
  /** What is stored; undefined while it is not `sleeping`. */
  #stage: SleepStage | undefined
  #sleptAtMs = 0
  /** The last change asked for; never rejects. */
  #change: Promise<unknown> = Promise.resolve()
  #falling: Promise<boolean> | undefined
  #waking: Promise<Woken | undefined> | undefined
  #ending: Promise<boolean> | undefined
  #over = false
  /** Its kind of sandbox cannot be hibernated, and it has no workspace. */
  #staysFrozen = false
  /** A row said that it cannot be put to sleep. */
  #told = false

  constructor(deps: JobSleepDeps, job: Sleeper) {
    this.#deps = deps
    this.#job = job
  }

  get awake(): boolean {
    return this.#state === 'awake'
  }

  /** What ends in the sandbox now is ended by us. */
  get isDeepening(): boolean {
    return this.#state === 'deepening'
  }

  /** It is awake, or about to be. */
  get takesRoom(): boolean {
    return this.#stage === undefined || this.#state === 'waking'
  }

  get stage(): SleepStage | undefined {
    return this.#stage
  }

  /** How long it has been frozen, if it can sleep deeper. */
  get frozenMs(): number | undefined {
    if (this.#state !== 'asleep' || this.#stage !== 'frozen' || this.#staysFrozen) return undefined
    return this.#deps.timers.now() - this.#sleptAtMs
  }

  /** A job that slept when the former process ended. */
  adopt(stage: SleepStage, sleptForMs: number): void {
    this.#state = 'asleep'
    this.#stage = stage
    this.#sleptAtMs = this.#deps.timers.now() - sleptForMs
  }

  /** Puts it to sleep, `why` in words for its log; idempotent. False when something used it meanwhile. Rejects with what saving its workspace or stopping the sandbox rejects with. */
  fallAsleep(why: string): Promise<boolean> {
    if (this.#stage !== undefined && this.#waking === undefined) return Promise.resolve(true)
    this.#falling ??= this.#enqueue(() => this.#fall(why)).finally(() => {
      this.#falling = undefined
    })
    return this.#falling
  }

  /** A frozen one gives its memory back, if it can; settles with how deep it sleeps then. */
  deepen(): Promise<SleepStage | undefined> {
    return this.#enqueue(async () => {
      if (this.#over || this.#state !== 'asleep' || this.#stage !== 'frozen') return this.#stage
      this.#state = 'deepening'
      try {
        await this.#deepen()
      } finally {
        this.#state = 'asleep'
      }
      return this.#stage
    })
  }

  /** Lets it go on; undefined when it was awake. Rejects with MagsError 'wake_failed' (it sleeps on, try again), 'job_not_running', 'rate_limited' (its account has as many awake as it may). */
  wake(reason: string): Promise<Woken | undefined> {
    if (this.#state === 'saving') this.#state = 'awake'
    if (this.#state === 'awake') return Promise.resolve(undefined)
    this.#waking ??= this.#enqueue(() => this.#wake(reason)).finally(() => {
      this.#waking = undefined
    })
    return this.#waking
  }

  /** Its sandbox died by itself. True when the job lives on: it slept, and its workspace has everything. */
  async lost(running: RunningSandbox): Promise<boolean> {
    return await this.#enqueue(async () => {
      // Given up by a wake already.
      if (this.#job.sandbox() !== running) return true
      if (this.#over || this.#stage === undefined || this.#job.workspace === undefined) return false
      await this.#job.log.system('the sleeping sandbox was lost; the next wake makes a new one from the workspace', 'error')
      await this.#drop(running)
      return true
    })
  }

  /** The job ends: nothing is begun any more, and a sandbox whose workspace is to be saved runs on. Whether there is one that can be spoken to. Never rejects. */
  end(): Promise<boolean> {
    this.#ending ??= this.#end()
    return this.#ending
  }

  /** The server ends and the job stays as it is stored. */
  async leave(): Promise<void> {
    if (this.#stop()) return
    const { timers, leaveWaitMs } = this.#deps
    const end = new AbortController()
    await Promise.race([this.#change, timers.wait(leaveWaitMs, end.signal).catch(() => undefined)])
    end.abort()
  }

  /** True when nothing is under way that has to come to its end. */
  #stop(): boolean {
    this.#over = true
    this.#abort.abort(ended())
    if (this.#state === 'saving') this.#state = 'awake'
    return this.#state === 'awake'
  }

  async #end(): Promise<boolean> {
    if (!this.#stop()) await this.#change
    const running = this.#job.sandbox()
    if (running === undefined) return false
    if (this.#stage === undefined) return true
    // Nothing of it is to be kept, so it needs not come back from the disk.
    if (this.#stage === 'hibernated' && this.#job.workspace === undefined) return false
    try {
      await running.wake()
      return true
    } catch (error) {
      this.#warn(error, 'a sleeping sandbox could not be woken for its end')
      return false
    }
  }

  async #fall(why: string): Promise<boolean> {
    const running = this.#job.sandbox()
    if (this.#stage !== undefined) return true
    if (this.#over || running === undefined || this.#job.isUsed()) return false
    this.#state = 'saving'
    try {
      await this.#job.workspace?.rest()
      if (!this.#isSaving() || this.#job.isUsed()) return this.#stayAwake()
      this.#state = 'freezing'
      await running.sleep()
      if (!(await this.#deps.store.markSleeping(this.#job.requestId, timestamp(this.#deps.clock())))) throw ended()
    } catch (error) {
      if (!this.#isSaving()) await running.wake().catch((fault: unknown) => this.#warn(fault, 'a sandbox could not be woken again'))
      this.#stayAwake()
      await this.#tellFailure(error)
      throw error
    }
    this.#told = false
    this.#state = 'asleep'
    this.#stage = 'frozen'
    this.#sleptAtMs = this.#deps.timers.now()
    this.#job.fellAsleep()
    await this.#job.log.system(`put to sleep: ${why}`, 'info')
    return true
  }

  /** Changed by whoever comes meanwhile. */
  #isSaving(): boolean {
    return this.#state === 'saving'
  }

  #stayAwake(): false {
    this.#state = 'awake'
    if (!this.#over) this.#job.workspace?.wake()
    return false
  }

  async #tellFailure(error: unknown): Promise<void> {
    if (this.#over || this.#told) return
    this.#told = true
    this.#warn(error, 'a job could not be put to sleep')
    await this.#job.log.system(`cannot be put to sleep at the moment: ${wordsOf(error)}; it stays awake, and that is tried again`, 'error')
  }

  async #deepen(): Promise<void> {
    const running = this.#job.sandbox()
    if (running === undefined) return
    if (await running.hibernate()) return await this.#storeStage('hibernated')
    if (this.#job.workspace === undefined) {
      this.#staysFrozen = true
      return
    }
    // To be saved once more it must run; that ends its processes at once.
    await running.wake()
    if (await this.#job.workspace.release()) return await this.#drop(running)
    await running.sleep()
  }

  /** The job goes on without a sandbox. */
  async #drop(running: RunningSandbox): Promise<void> {
    this.#job.workspace?.drop()
    this.#job.replace(undefined)
    await this.#storeStage('released')
    await running.destroy().catch((error: unknown) => this.#warn(error, 'a sandbox could not be destroyed'))
  }

  async #storeStage(stage: SleepStage): Promise<void> {
    this.#stage = stage
    // Not stored, the next process finds no sandbox, and takes it for released by itself.
    await this.#deps.store.setSleepStage(this.#job.requestId, stage).catch((error: unknown) => this.#warn(error, 'how deep a job sleeps could not be stored'))
    const words = stage === 'hibernated' ? 'its memory is on disk now' : 'its sandbox was given back; the next wake makes a new one from the workspace'
    await this.#job.log.system(`sleeps on: ${words}`, 'info')
  }

  async #wake(reason: string): Promise<Woken | undefined> {
    if (this.#over) throw ended()
    if (this.#stage === undefined) return undefined
    this.#job.wakes()
    const { timers, clock, store } = this.#deps
    const startedAtMs = timers.now()
    this.#state = 'waking'
    try {
      const { running, restarted } = await this.#rouse()
      const durationMs = Math.round((timers.now() - startedAtMs) * 1000) / 1000
      const wake = { vmId: running.sandboxId, isolation: running.isolation, wokenAt: timestamp(clock()), reason, durationMs, restarted }
      const stored = await store.markAwake(this.#job.requestId, wake).catch(async (error: unknown) => {
        await this.#undo(running, restarted)
        throw error
      })
      if (!stored || this.#over) throw ended()
      this.#stage = undefined
      this.#state = 'awake'
      if (restarted) this.#job.workspace?.watch(running)
      else this.#job.workspace?.wake()
      void this.#job.log.system(`woken by ${reason} in ${Math.round(durationMs * 10) / 10} ms`, 'info')
      return { durationMs }
    } catch (error) {
      this.#state = 'asleep'
      if (this.#over) throw ended()
      this.#warn(error, 'a job could not be woken')
      if (error instanceof MagsError && error.code === 'job_not_running') throw error
      throw new MagsError('wake_failed', `the job could not be woken: ${wordsOf(error)}`, { cause: error })
    }
  }

  async #rouse(): Promise<{ readonly running: RunningSandbox; readonly restarted: boolean }> {
    const asleep = this.#job.sandbox()
    if (asleep !== undefined) {
      try {
        await asleep.wake()
        return { running: asleep, restarted: false }
      } catch (error) {
        if (this.#over || this.#job.workspace === undefined) throw error
        this.#warn(error, 'a sleeping sandbox could not go on')
        await this.#job.log.system(`the sleeping sandbox could not go on: ${wordsOf(error)}; a new one is made from the workspace`, 'error')
        await this.#drop(asleep)
      }
    }
    const running = await this.#job.restart(this.#abort.signal)
    this.#job.replace(running)
    return { running, restarted: true }
  }

  /** What could not be stored has not happened. */
  async #undo(running: RunningSandbox, restarted: boolean): Promise<void> {
    if (restarted) this.#job.replace(undefined)
    await (restarted ? running.destroy() : running.sleep()).catch((error: unknown) => this.#warn(error, 'a wake could not be undone'))
  }

  #enqueue<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#change.then(work)
    this.#change = done.catch(() => undefined)
    return done
  }

  #warn(error: unknown, words: string): void {
    this.#deps.logger.warn({ err: error, requestId: this.#job.requestId }, words)
  }
}

const ended = () => new MagsError('job_not_running', 'the job is ending')
const wordsOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
