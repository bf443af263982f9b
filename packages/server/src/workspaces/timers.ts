import { setTimeout as delay } from 'node:timers/promises'

/** Time and chance, so that tests have both in their hands. */
export interface Timers {
  /** Rejects when aborted. Does not keep the process alive. */
  wait(ms: number, abort?: AbortSignal): Promise<void>
  /** Milliseconds on a clock that only goes forward. */
  now(): number
  /** From 0 up to, but not including, 1. */
  random(): number
}

export const realTimers: Timers = {
  wait: (ms, abort) => delay(ms, undefined, { ref: false, ...(abort === undefined ? {} : { signal: abort }) }),
  now: () => performance.now(),
  random: Math.random,
}
