/** Time as the pool sees it; tests turn it by hand. */
export interface PoolClock {
  /** Milliseconds on a clock that never jumps. */
  now(): number
  /** Calls once after a while, unless the returned function is called before. Never keeps the process alive. */
  after(ms: number, callback: () => void): () => void
}

export const systemClock: PoolClock = {
  now: () => performance.now(),
  after(ms, callback) {
    const timer = setTimeout(callback, ms)
    timer.unref()
    return () => clearTimeout(timer)
  },
}
