import type { GatewayDirectory, GatewayLease } from '@mags/protocol'
import type { Logger } from 'pino'
import { IdleConnections } from '../upstream/idle-connections.ts'

export interface OpenJobDeps {
  readonly directory: GatewayDirectory
  readonly logger: Logger
  readonly lingerMs: number
}

/** A request or raw connection of the job. */
export interface JobUser {
  /** The sandbox is gone, and nothing more will come from it. */
  jobGone(): void
}

/** What a sandbox sent before its end may still be on its way. */
const lastWordsMs = 1000

/**
 * A job that is open for traffic, with one lease for all its requests.
 *
 * opening -> open -> closed (last request ended `lingerMs` ago, sandbox gone, or retired and unused). opening -> closed when it could not be opened. Closing gives the lease back.
 */
export class OpenJob {
  readonly idle = new IdleConnections()
  /** Settles when it is open; rejects with why it cannot be. */
  readonly opened: Promise<GatewayLease>
  lease: GatewayLease | undefined
  held = 0
  readonly #deps: OpenJobDeps
  readonly #onClosed: () => void
  readonly #users = new Set<JobUser>()
  readonly #watchers = new Set<JobUser>()
  #lingering: NodeJS.Timeout | undefined
  #retired = false
  #closed = false

  constructor(deps: OpenJobDeps, requestId: string, onClosed: () => void) {
    this.#deps = deps
    this.#onClosed = onClosed
    this.opened = this.#open(requestId)
    this.opened.catch(() => this.close())
  }

  get isClosed(): boolean {
    return this.#closed || this.#retired
  }

  hold(user: JobUser): void {
    this.#users.add(user)
    clearTimeout(this.#lingering)
    this.#lingering = undefined
  }

  release(user: JobUser): void {
    this.#users.delete(user)
    if (this.#users.size > 0 || this.lease === undefined || this.#closed) return
    if (this.#retired) this.close()
    else this.#linger()
  }

  /** Tells a raw connection that does not hold the job when the sandbox is gone, also after this was closed. */
  watch(user: JobUser): void {
    this.#watchers.add(user)
  }

  unwatch(user: JobUser): void {
    this.#watchers.delete(user)
  }

  /** Takes no new requests; closed when those it has are over. */
  retire(): void {
    this.#retired = true
    this.#onClosed()
    this.idle.close()
    if (this.#users.size === 0 && this.lease !== undefined) this.close()
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#lingering)
    this.idle.close()
    this.#onClosed()
    this.lease?.[Symbol.dispose]()
  }

  async #open(requestId: string): Promise<GatewayLease> {
    const lease = await this.#deps.directory.open(requestId, 'http')
    this.lease = lease
    if (this.#closed) {
      lease[Symbol.dispose]()
      return lease
    }
    lease.gone.then(
      () => this.#end(),
      (error: unknown) => {
        this.#deps.logger.error({ err: error, requestId }, 'a lease ended with an error')
        this.#end()
      },
    )
    if (this.#users.size === 0) this.#linger()
    return lease
  }

  #end(): void {
    this.close()
    if (this.#users.size + this.#watchers.size === 0) return
    // A machine that is gone does not close its connections.
    setTimeout(() => {
      for (const user of [...this.#users, ...this.#watchers]) user.jobGone()
    }, lastWordsMs).unref()
  }

  #linger(): void {
    clearTimeout(this.#lingering)
    this.#lingering = setTimeout(() => (this.#retired || this.#users.size === 0 ? this.close() : undefined), this.#deps.lingerMs)
    this.#lingering.unref()
  }
}
