/** A wall clock reading as the API and the database have it: RFC 3339, UTC, milliseconds. */
export function timestamp(timeMs: number): string {
  return new Date(timeMs).toISOString()
}
