const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'] as const

/** Such as `12.3 MB`; powers of 1,000. */
export function formatBytes(count: number): string {
  let value = count
  let unit = 0
  // What would be rounded to 1000 of one unit is 1 of the next.
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000
    unit += 1
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : 1
  return `${value.toFixed(digits)} ${units[unit]}`
}
