import type { RefusedConnection } from '@mags/protocol'
import type { Logger } from 'pino'
import type { RefusedRow } from '../network/network-egress.ts'
import type { SlotUse } from '../network/slot-use.ts'

const intervalMs = 2_000
const quietMs = 60_000
const mostPerMinute = 64

interface Watcher {
  readonly use: SlotUse
  readonly listener: (refused: RefusedConnection) => void
  /** When each target was told, or was asked for again since: it is told once until it rests for a minute. */
  readonly toldAt: Map<string, number>
}

/**
 * Tells listeners what their sandboxes were refused: what the kernel has on record is read every two seconds while somebody listens. A target is told once a minute
 * at most, and a listener hears of 64 a minute.
 */
export class RefusalWatch {
  readonly #read: () => Promise<readonly RefusedRow[]>
  readonly #logger: Pick<Logger, 'warn'>
  readonly #watchers = new Set<Watcher>()
  #timer: NodeJS.Timeout | undefined
  #reading: Promise<void> | undefined

  constructor(read: () => Promise<readonly RefusedRow[]>, logger: Pick<Logger, 'warn'>) {
    this.#read = read
    this.#logger = logger
  }

  /** Returns how to stop: with a last look, so that nothing is left untold. */
  add(use: SlotUse, listener: (refused: RefusedConnection) => void): () => Promise<void> {
    const watcher: Watcher = { use, listener, toldAt: new Map() }
    this.#watchers.add(watcher)
    this.#timer ??= setInterval(() => this.#look(), intervalMs).unref()
    return async () => {
      await this.#lookOnce()
      this.#watchers.delete(watcher)
      if (this.#watchers.size === 0) this.close()
    }
  }

  close() {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #look() {
    if ([...this.#watchers].some(({ use }) => !use.resting && !use.ended)) void this.#lookOnce()
  }

  /** One reading for all who ask meanwhile. */
  #lookOnce(): Promise<void> {
    this.#reading ??= this.#read()
      .then((rows) => this.deliver(rows))
      .catch((error: unknown) => this.#logger.warn({ err: error }, 'refused connections could not be read'))
      .finally(() => {
        this.#reading = undefined
      })
    return this.#reading
  }

  /** One reading. */
  deliver(rows: readonly RefusedRow[], nowMs = performance.now()) {
    const byGeneration = Map.groupBy(rows, ({ generation }) => generation)
    for (const watcher of this.#watchers) {
      for (const generation of watcher.use.generations) for (const row of byGeneration.get(generation) ?? []) this.#offer(watcher, row, nowMs)
    }
  }

  #offer({ listener, toldAt }: Watcher, { protocol, address, port }: RefusedConnection, nowMs: number) {
    for (const [target, at] of toldAt) if (nowMs - at >= quietMs) toldAt.delete(target)
    const target = `${protocol} ${address} ${port}`
    if (toldAt.has(target) || toldAt.size >= mostPerMinute) return
    toldAt.set(target, nowMs)
    listener({ protocol, address, port })
  }
}
