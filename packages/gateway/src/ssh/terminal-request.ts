import type { TerminalSize } from '@mags/protocol'

const cellsMax = 0xffff

/** RFC 4254, 6.2: a client that knows no size sends 0. */
export function terminalSize(asked: { readonly rows: number; readonly cols: number }): TerminalSize {
  return { rows: bounded(asked.rows, 24), cols: bounded(asked.cols, 80) }
}

/** A name of terminfo(5), or the plainest. */
export function terminalName(asked: string | undefined): string {
  return asked !== undefined && /^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$/.test(asked) ? asked : 'dumb'
}

function bounded(value: number, missing: number): number {
  return Number.isInteger(value) && value > 0 ? Math.min(value, cellsMax) : missing
}
