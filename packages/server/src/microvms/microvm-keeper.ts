import { type HostApi, isFinal, MagsError, type ScriptExit } from '@mags/protocol'
import type { Logger } from 'pino'
import type { Job } from '../jobs/job.ts'
import type { JobRun } from '../jobs/job-run.ts'
import { type StartJobDeps, startJob } from '../jobs/start-job.ts'
import { timestamp } from '../state/timestamp.ts'
import type { Timers } from '../workspaces/timers.ts'
import { awaitBoot } from './await-boot.ts'
import { type Microvm, nextJob } from './microvm.ts'
import { type PowerOffDeps, powerOff } from './power-off.ts'
import { RebootBackoff } from './reboot-backoff.ts'
import { type RemoveMicrovmDeps, removeMicrovm } from './remove-microvm.ts'
import type { MicrovmStore } from './store.ts'

export interface MicrovmKeeperDeps extends StartJobDeps, RemoveMicrovmDeps, PowerOffDeps {
  readonly host: HostApi
  readonly microvms: MicrovmStore
  readonly clock: () => number
  readonly timers: Timers
  readonly logger: Logger
}

/** After a start that the server had no room for. */
const noRoomWaitMs = 5000

/**
 * Makes of every microVM what is wished. A look at one compares its row with its newest job, does one step after the other until they agree (ends a job, starts one, deletes it), and then watches the job; whatever changes leads to another
 * look. All that is wished is stored before, so that the next server goes on where one ended.
 *
 * Each microVM: idle ──look──► looking (another look follows when somebody asked meanwhile) ──► idle. The keeper: open ──close──► closed, when nothing is begun any more.
 */
export class MicrovmKeeper {
  readonly #deps: MicrovmKeeperDeps
  readonly #looks = new Map<string, { again: boolean; done: Promise<void> }>()
  /** Request ids of jobs whose end leads to a look. */
  readonly #watched = new Set<string>()
  /** Request ids of jobs whose boot is to be waited for, and is. One that a former server began counts as up. */
  readonly #toBoot = new Set<string>()
  readonly #booting = new Map<string, Promise<void>>()
  readonly #reboots = new RebootBackoff()
  readonly #closing = new AbortController()

  constructor(deps: MicrovmKeeperDeps) {
    this.#deps = deps
  }

  /** Goes on with what a former server left; after its jobs were recovered, and before others start. */
  async start(): Promise<void> {
    const { microvms, clock } = this.#deps
    const unsettled = await microvms.listUnsettled()
    for (const { id, wish, error, requestId } of unsettled) {
      const job = requestId === null ? undefined : await microvms.newestJob(id)
      // Its machine is gone with the former server, or its init ended while nobody saw how: it is wished to run.
      const isLost = job?.requestId === requestId && (job?.status === 'error' || job?.status === 'completed' || (job?.init && job.exitCode !== null))
      if (wish === 'running' && error === null && requestId !== null && isLost) await microvms.note(id, requestId, timestamp(clock()), { requestId: null })
      void this.look(id)
    }
  }

  /** Settles once it is as wished as far as that does not take a job's start, or once what stands in the way is noted. Never rejects. */
  look(id: string): Promise<void> {
    const current = this.#looks.get(id)
    if (current) {
      current.again = true
      return current.done
    }
    const look = { again: true, done: Promise.resolve() }
    this.#looks.set(id, look)
    look.done = this.#lookUntilQuiet(id, look)
    return look.done
  }

  /** Of a job that is about to be handed to the dispatcher: its services are waited for. */
  expectBoot({ init }: Microvm, requestId: string): void {
    if (init) this.#toBoot.add(requestId)
  }

  /** Whether the machine of a job was started, and its services with it. */
  isUp({ requestId, uses }: JobRun): boolean {
    return uses.hasBegun && !this.#toBoot.has(requestId) && !this.#booting.has(requestId)
  }

  /** Settles once it runs, or is not going to. Never rejects. */
  async started(id: string): Promise<void> {
    this.#reboots.forget(id)
    while (!this.#closing.signal.aborted) {
      await this.look(id)
      const job = await this.#deps.microvms.newestJob(id)
      const run = job && this.#deps.dispatcher.find(job.requestId)
      if (run === undefined) return
      await run.uses.begun
      await this.#booting.get(run.requestId)
      if (!run.isOver) return
      await run.done
    }
  }

  /** Begins nothing any more; settles when what was begun is at a place where the next server goes on. */
  async close(): Promise<void> {
    this.#closing.abort(new MagsError('no_capacity', 'the server is shutting down'))
    await Promise.all([...this.#looks.values()].map(({ done }) => done))
  }

  async #lookUntilQuiet(id: string, look: { again: boolean }): Promise<void> {
    while (look.again && !this.#closing.signal.aborted) {
      look.again = false
      try {
        await this.#settle(id)
      } catch (error) {
        this.#deps.logger.error({ err: error, microvmId: id }, 'a microVM could not be made what is wished; this is tried again')
        this.#lookLater(id)
      }
    }
    this.#looks.delete(id)
  }

  async #settle(id: string): Promise<void> {
    const { microvms, dispatcher } = this.#deps
    while (!this.#closing.signal.aborted) {
      const microvm = await microvms.get(id)
      if (microvm === undefined) return this.#reboots.forget(id)
      const job = await microvms.newestJob(id)
      const lives = job !== undefined && !isFinal(job.status)
      const run = lives ? dispatcher.find(job.requestId) : undefined
      // Of another server, which looks after it.
      if (lives && run === undefined) return
      const isWished = microvm.wish === 'running' && microvm.error === null
      if (microvm.wish === 'deleted') return await removeMicrovm(this.#deps, microvm, job, run)
      if (run !== undefined && isWished && run.requestId === microvm.requestId) return this.#watch(microvm, run)
      if (run !== undefined) await this.#end(microvm, run)
      else if (!isWished) return
      else if (job === undefined) throw new MagsError('internal', 'the microVM never had a job')
      else if (microvm.requestId !== null) await this.#noteEnd(microvm, microvm.requestId, job)
      else if (!(await this.#begin(microvm, job))) return
    }
  }

  /** Whether to look on. */
  async #begin(microvm: Microvm, before: Job): Promise<boolean> {
    const { microvms, clock, logger } = this.#deps
    const { id, accountId, workspaceId, image, imageDigest } = microvm
    const waitMs = this.#reboots.leftMs(id, this.#deps.timers.now())
    if (waitMs > 0) {
      this.#lookLater(id, waitMs)
      return false
    }
    const job = nextJob(microvm, before, clock())
    const wish = {
      ...{ accountId, workspaceId, requestId: job.requestId, baseWorkspaceId: null, now: job.createdAt },
      image: { name: image, digest: imageDigest },
      // What it was grown to.
      diskGb: undefined,
    }
    try {
      this.expectBoot(microvm, job.requestId)
      await startJob(this.#deps, job, {
        wish,
        within: async (transaction) => {
          if (!(await microvms.setJob(transaction, id, job.requestId))) throw new NotWished()
        },
      })
    } catch (error) {
      this.#toBoot.delete(job.requestId)
      if (error instanceof NotWished) return true
      if (!(error instanceof MagsError)) throw error
      if (error.code === 'no_capacity' || error.code === 'rate_limited') {
        this.#lookLater(id)
        return false
      }
      logger.warn({ err: error, microvmId: id }, 'a microVM could not be started')
      await microvms.noteRefused(id, timestamp(clock()), error.message)
    }
    return true
  }

  /** Ends a job that is not the wished one, and saves what it did. */
  async #end(microvm: Microvm, run: JobRun): Promise<void> {
    if (microvm.init) await powerOff(this.#deps, run, this.#closing.signal)
    if (!this.#closing.signal.aborted) await run.stop()
  }

  /** The job is over although it was wished to run. */
  async #noteEnd({ id, init }: Microvm, requestId: string, job: Job): Promise<void> {
    const { microvms, clock } = this.#deps
    this.#toBoot.delete(requestId)
    // Whoever stops the job stops the microVM.
    const what = init ? 'its machine ended by itself' : 'its sandbox ended by itself'
    const change = job.status === 'stopped' ? { wish: 'stopped' as const } : { error: job.error ?? what }
    await microvms.note(id, requestId, timestamp(clock()), change)
  }

  #watch({ id, init }: Microvm, run: JobRun): void {
    const { requestId } = run
    if (this.#watched.has(requestId)) return
    this.#watched.add(requestId)
    if (this.#toBoot.delete(requestId))
      this.#booting.set(
        requestId,
        awaitBoot(this.#deps, run, this.#closing.signal).finally(() => this.#booting.delete(requestId)),
      )
    if (init) void this.#awaitHalt(id, run)
    void run.done.then(() => {
      this.#watched.delete(requestId)
      if (run.isOver) void this.look(id)
    })
  }

  async #awaitHalt(id: string, run: JobRun): Promise<void> {
    const { timers } = this.#deps
    await Promise.race([run.uses.begun, run.scriptEnd])
    const begunAtMs = timers.now()
    const exit = await run.scriptEnd
    if (exit) await this.#noteHalt(id, run, exit, timers.now() - begunAtMs)
  }

  /** Its init ended, after it ran for so long, and its machine is still there. */
  async #noteHalt(id: string, run: JobRun, exit: ScriptExit, ranMs: number): Promise<void> {
    const { microvms, clock, logger, timers } = this.#deps
    // Then the job is over, too.
    if (run.isOver || exit.kind === 'sandbox-lost' || exit.kind === 'not-started') return
    const { halted } = exit
    const words = halted === undefined ? `its init ended${exit.reason === undefined ? ` with exit code ${exit.exitCode}` : `: ${exit.reason}`}` : ''
    const change = halted === 'powered-off' ? { wish: 'stopped' as const } : halted === 'rebooted' ? { requestId: null } : { error: words }
    const waitMs = halted === 'rebooted' ? this.#reboots.note(id, ranMs, timers.now()) : 0
    const again = waitMs === 0 ? '' : `; it does so again and again, so its next start waits ${waitMs / 1000} s`
    try {
      await run.log.system(halted === undefined ? words : halted === 'rebooted' ? `rebooted from inside${again}` : 'powered off from inside', 'info')
      await microvms.note(id, run.requestId, timestamp(clock()), change)
    } catch (error) {
      logger.error({ err: error, microvmId: id }, 'that the init of a microVM ended could not be noted')
    }
    await this.look(id)
  }

  #lookLater(id: string, waitMs = noRoomWaitMs): void {
    this.#deps.timers.wait(waitMs, this.#closing.signal).then(
      () => this.look(id),
      () => undefined,
    )
  }
}

/** Something else was wished since it was looked at. */
class NotWished extends Error {}
