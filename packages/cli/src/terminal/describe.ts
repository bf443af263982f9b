import { printable } from './output.ts'

/** Named values, a line each, without those that are not there. */
export function describe(rows: readonly (readonly [string, string | null | undefined])[]): string {
  return rows.flatMap(([name, value]) => (value == null ? [] : [`${`${name}:`.padEnd(12)}${printable(value)}\n`])).join('')
}
