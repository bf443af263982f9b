import type { GatewayLease } from '@mags/protocol'

/** A job is awake while this is not disposed. */
export interface LeaseHold extends Disposable {
  /** Rejects as `GatewayDirectory.open`. */
  readonly lease: Promise<GatewayLease>
  /** The sandbox is gone. */
  readonly lost: AbortSignal
}

interface Opened {
  readonly lease: Promise<GatewayLease>
  readonly lost: AbortController
  readonly abort: AbortController
  holds: number
}

/**
 * One lease for all channels of a connection: opened by the first hold, closed by the last (`none` → `opened` → `none` …). One that could not be opened, and one whose sandbox is gone, is not handed out again: the
 * next hold asks anew.
 */
export class ConnectionLease {
  readonly #open: (abort: AbortSignal) => Promise<GatewayLease>
  #current: Opened | undefined

  constructor(open: (abort: AbortSignal) => Promise<GatewayLease>) {
    this.#open = open
  }

  hold(): LeaseHold {
    const opened = this.#current ?? this.#begin()
    opened.holds++
    let held = true
    return {
      lease: opened.lease,
      lost: opened.lost.signal,
      [Symbol.dispose]: () => {
        if (!held) return
        held = false
        if (--opened.holds === 0) this.#end(opened)
      },
    }
  }

  #begin(): Opened {
    const abort = new AbortController()
    const opened: Opened = { lease: this.#open(abort.signal), abort, lost: new AbortController(), holds: 0 }
    this.#current = opened
    const forget = () => {
      if (this.#current === opened) this.#current = undefined
    }
    const lose = () => {
      forget()
      opened.lost.abort()
    }
    opened.lease.then((lease) => lease.gone.then(lose, lose), forget)
    return opened
  }

  #end(opened: Opened): void {
    if (this.#current === opened) this.#current = undefined
    opened.abort.abort(new Error('nobody waits for it any more'))
    opened.lease.then(
      (lease) => lease[Symbol.dispose](),
      () => undefined,
    )
  }
}
