import type { LogRowWire } from './answers.ts'

/** The bytes that the program wrote for this row, newline included where there was one. */
export function logRowBytes(row: Pick<LogRowWire, 'message' | 'base64' | 'partial'>): Buffer {
  const bytes = row.base64 === undefined ? Buffer.from(row.message, 'utf8') : Buffer.from(row.base64, 'base64')
  return row.partial ? bytes : Buffer.concat([bytes, newline])
}

const newline = Buffer.from('\n')
