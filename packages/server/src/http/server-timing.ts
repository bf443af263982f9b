/** A Server-Timing header (W3C Server Timing): durations in milliseconds; what is not known is left out. */
export function serverTiming(durations: Readonly<Record<string, number | null>>): string {
  return Object.entries(durations)
    .flatMap(([name, durationMs]) => (durationMs === null ? [] : [`${name};dur=${durationMs}`]))
    .join(', ')
}
