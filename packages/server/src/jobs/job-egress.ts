import type { RefusedConnection, RunningSandbox } from '@mags/protocol'
import type { Logger } from 'pino'
import type { JobLog } from '../logs/job-log.ts'
import { realTimers, type Timers } from '../workspaces/timers.ts'

export interface JobEgressDeps {
  /** What the job is known to have sent, of all its sandboxes; null: nothing yet. */
  readonly storedBytes: number | null
  readonly log: Pick<JobLog, 'system'>
  /** May reject; the next reading is stored again. */
  readonly storeBytes: (bytes: number) => Promise<unknown>
  readonly logger: Pick<Logger, 'warn'>
  readonly timers?: Timers
}

type Watched = Pick<RunningSandbox, 'egressBytes' | 'egressTotal' | 'watchRefused'>

/** A short job costs nothing: what it sent is counted after its end, and what it was refused is only looked for when it has rules of its own. */
const shortMs = 2000
const storeEveryMs = 30_000
const minuteMs = 60_000
const rowsPerMinute = 16

/**
 * What a job's sandboxes were refused, as rows of its log, and what they sent, as a number of its row.
 *
 *     idle ──watch──▶ watching ──watch (another sandbox)──▶ watching
 *       └────────────────┴── finish, detach ──▶ over
 */
export class JobEgress {
  readonly #deps: JobEgressDeps
  readonly #timers: Timers
  readonly #over = new AbortController()
  #running: Watched | undefined
  #stopWatching: (() => Promise<void>) | undefined
  /** Sent by sandboxes the job had before this one; known with its first reading when it was adopted. */
  #earlierBytes: number | undefined
  #totalBytes: number
  #storedBytes: number | null
  #windowStart = Number.NEGATIVE_INFINITY
  #rows = 0
  #unsaid = 0
  #detached = false

  constructor(deps: JobEgressDeps) {
    this.#deps = deps
    this.#timers = deps.timers ?? realTimers
    this.#storedBytes = deps.storedBytes
    this.#totalBytes = deps.storedBytes ?? 0
  }

  /** A sandbox of the job, in place of the one before. `isAdopted`: its counter has counted part of what is stored. `hasRules`: it has a policy of its own. */
  watch(running: Watched, { isAdopted = false, hasRules = false }: { readonly isAdopted?: boolean; readonly hasRules?: boolean } = {}) {
    if (this.#over.signal.aborted || running === this.#running) return
    const isFirst = this.#running === undefined
    void this.#stopWatching?.()
    this.#running = running
    this.#earlierBytes = isAdopted ? undefined : this.#totalBytes
    void running.egressTotal.then((bytes) => this.#storeTotal(running, bytes))
    if (hasRules || isAdopted) this.#listen(running)
    else void this.#listenLater(running)
    if (isFirst) void this.#storeRegularly(this.#over.signal)
  }

  /** Call it while the job's log is still open. What the last sandbox sent in all is stored when it is gone. Never rejects. */
  async finish() {
    const stopWatching = this.#stopWatching
    this.#stopWatching = undefined
    await stopWatching?.().catch(() => undefined)
    this.#stop()
    await this.#sayUnsaid()
  }

  /** Leaves everything as it is, for the next server. */
  detach() {
    this.#detached = true
    this.#stop()
  }

  #stop() {
    this.#over.abort()
    void this.#stopWatching?.()
    this.#stopWatching = undefined
  }

  #listen(running: Watched) {
    this.#stopWatching = running.watchRefused((refused) => this.#write(refused))
  }

  async #listenLater(running: Watched) {
    try {
      await this.#timers.wait(shortMs, this.#over.signal)
    } catch {
      return
    }
    if (running === this.#running && !this.#over.signal.aborted) this.#listen(running)
  }

  /** Its last word; a sandbox that lives on for the next server has none here. */
  async #storeTotal(running: Watched, bytes: number) {
    if (this.#detached || running !== this.#running) return
    this.#earlierBytes ??= Math.max(0, this.#totalBytes - bytes)
    this.#totalBytes = this.#earlierBytes + bytes
    if (this.#totalBytes === (this.#storedBytes ?? 0)) return
    await this.#deps.storeBytes(this.#totalBytes).catch((error: unknown) => this.#deps.logger.warn({ err: error }, 'what a job sent could not be stored'))
  }

  async #storeRegularly(over: AbortSignal) {
    while (!over.aborted) {
      try {
        await this.#timers.wait(storeEveryMs, over)
      } catch {
        return
      }
      if (!over.aborted) await this.#store()
      await this.#sayUnsaid()
    }
  }

  async #store() {
    const running = this.#running
    if (running === undefined) return
    try {
      const bytes = await running.egressBytes()
      // Another one has taken its place: what it sent in the last seconds before is not known.
      if (running !== this.#running) return
      // An adopted sandbox's counter goes on, so what was stored beyond it is of those before.
      this.#earlierBytes ??= Math.max(0, this.#totalBytes - bytes)
      this.#totalBytes = this.#earlierBytes + bytes
      if (this.#totalBytes === this.#storedBytes) return
      const total = this.#totalBytes
      await this.#deps.storeBytes(total)
      this.#storedBytes = total
    } catch (error) {
      this.#deps.logger.warn({ err: error }, 'what a job sent could not be stored')
    }
  }

  #write({ protocol, address, port }: RefusedConnection) {
    // The next server tells it: the log of this one is closed.
    if (this.#detached) return
    const now = this.#timers.now()
    if (now - this.#windowStart >= minuteMs) {
      this.#windowStart = now
      this.#rows = 0
    }
    if (this.#rows >= rowsPerMinute) {
      this.#unsaid += 1
      return
    }
    this.#rows += 1
    this.#say(`refused: ${describeTarget(protocol, address, port)} (egress policy)`)
  }

  async #sayUnsaid() {
    if (this.#unsaid === 0) return
    const words = `refused: ${this.#unsaid} more ${this.#unsaid === 1 ? 'target' : 'targets'} (egress policy)`
    this.#unsaid = 0
    await this.#say(words)
  }

  #say(words: string): Promise<void> {
    return this.#deps.log.system(words, 'info').catch((error: unknown) => this.#deps.logger.warn({ err: error }, 'a refused connection could not be logged'))
  }
}

function describeTarget(protocol: RefusedConnection['protocol'], address: string, port: number): string {
  // Of a name that was not resolved the host says the name.
  if (!/^[\d.]+$/.test(address)) return `the name ${address}`
  return protocol === 'other' ? address : `${protocol} ${address}:${port}`
}
