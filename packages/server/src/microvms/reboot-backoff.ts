/** One that ran for so long has come to rest; what it did before counts no more. */
const restsAfterMs = 120_000
/** An installation may reboot twice at once. */
const freeReboots = 2
const firstWaitMs = 7000
const longestWaitMs = 300_000

interface Reboots {
  readonly quick: number
  readonly notBeforeMs: number
}

/** How long a machine that reboots again and again waits for its next start, twice as long each time: each one makes a job, saves a disk and boots. Times are readings of one monotonic clock. */
export class RebootBackoff {
  readonly #reboots = new Map<string, Reboots>()

  /** It rebooted after so long. How long it is to wait. */
  note(id: string, ranMs: number, nowMs: number): number {
    const quick = ranMs >= restsAfterMs ? 1 : (this.#reboots.get(id)?.quick ?? 0) + 1
    const waitMs = quick <= freeReboots ? 0 : Math.min(longestWaitMs, firstWaitMs * 2 ** (quick - freeReboots - 1))
    this.#reboots.set(id, { quick, notBeforeMs: nowMs + waitMs })
    return waitMs
  }

  /** How much of that is left. */
  leftMs(id: string, nowMs: number): number {
    return Math.max(0, (this.#reboots.get(id)?.notBeforeMs ?? 0) - nowMs)
  }

  /** Somebody wants it to run now, or it is gone. */
  forget(id: string): void {
    this.#reboots.delete(id)
  }
}
