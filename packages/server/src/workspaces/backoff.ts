export interface BackoffOptions {
  readonly firstMs: number
  readonly longestMs: number
}

/** How long to wait after this many failures in a row (from 1): twice as long each time up to a bound, and between half and all of that by chance, so that many do not come back at once. */
export function backoffMs(failures: number, random: () => number, { firstMs, longestMs }: BackoffOptions): number {
  const whole = Math.min(longestMs, firstMs * 2 ** Math.min(30, failures - 1))
  return Math.round(whole * (0.5 + random() / 2))
}
