import { setTimeout as delay } from 'node:timers/promises'
import type { QmpConnection, QmpEvent } from './qmp.ts'

export interface DiskStallOptions {
  /** Between two tries to go on: the first wait, which doubles, and the longest, ms. */
  readonly firstWaitMs?: number
  readonly longestWaitMs?: number
  /** It goes on when no write has failed for so long after a try, ms. */
  readonly quietMs?: number
}

type Listener = (words: string | undefined) => void

/**
 * A machine whose disk cannot be written: QEMU stops it at the first write that fails (`werror=stop`) and keeps what it was to write, so that the guest notices nothing but the time; `cont` tries the write again.
 *
 *     runs ──BLOCK_IO_ERROR──▶ stalled ──cont every few seconds, until no write fails──▶ runs
 *                                 └────── hold (it stands still on purpose, too) ◀──▶ release
 *
 * https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html#qapidoc-BLOCK_IO_ERROR
 */
export class DiskStall {
  readonly #options: Required<DiskStallOptions>
  readonly #listeners = new Set<Listener>()
  readonly #over = new AbortController()
  #qmp: QmpConnection | undefined
  #words: string | undefined
  #failures = 0
  #held = false
  #trying = false

  constructor({ firstWaitMs = 500, longestWaitMs = 5_000, quietMs = 1_000 }: DiskStallOptions = {}) {
    this.#options = { firstWaitMs, longestWaitMs, quietMs }
  }

  /** Why it stands still, and what to do. */
  get words(): string | undefined {
    return this.#words
  }

  /** Hears each change; at once when it stands still. */
  watch(listener: Listener): void {
    this.#listeners.add(listener)
    if (this.#words !== undefined) listener(this.#words)
  }

  /** Whom to tell to go on; `stalled`: it stands still already. */
  follow(qmp: QmpConnection, { stalled = false } = {}): void {
    this.#qmp = qmp
    void qmp.closed.then(() => this.#over.abort())
    if (stalled) this.#stall(words({}))
    else void this.#goOn()
  }

  /** An event of QEMU. */
  note({ event, data }: QmpEvent): void {
    if (event === 'BLOCK_IO_ERROR' && data.action === 'stop') this.#stall(words(data))
  }

  /** Nobody tells it to go on until `release`. */
  hold(): void {
    this.#held = true
  }

  release(): void {
    this.#held = false
  }

  #stall(why: string) {
    this.#failures++
    this.#tell(this.#words ?? why)
    void this.#goOn()
  }

  async #goOn() {
    if (this.#trying || this.#words === undefined || this.#qmp === undefined) return
    this.#trying = true
    const { firstWaitMs, longestWaitMs, quietMs } = this.#options
    const { signal } = this.#over
    try {
      for (let waitMs = firstWaitMs; ; waitMs = Math.min(2 * waitMs, longestWaitMs)) {
        await delay(waitMs, undefined, { ref: false, signal })
        if (this.#held) continue
        const failures = this.#failures
        await this.#qmp.execute('cont').catch(() => undefined)
        await delay(quietMs, undefined, { ref: false, signal })
        if (failures === this.#failures && !this.#held) return this.#tell(undefined)
      }
    } catch {
      // QEMU is gone, or not ours any more.
    } finally {
      this.#trying = false
    }
  }

  #tell(change: string | undefined) {
    if (change === this.#words) return
    this.#words = change
    for (const listener of this.#listeners) listener(change)
  }
}

/** What QEMU says of the error is for people, and of the host. */
function words({ nospace, reason }: { readonly nospace?: unknown; readonly reason?: unknown }): string {
  if (nospace === false && typeof reason === 'string' && reason !== '')
    return `its disk cannot be written on this server (${reason}); see the kernel's log for why`
  return "the server's disk is full; free some space on it (mags doctor has the figures)"
}
