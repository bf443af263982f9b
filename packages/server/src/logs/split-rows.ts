import { isUtf8 } from 'node:buffer'
import type { LogRow } from '@mags/protocol'
import { timestamp } from '../state/timestamp.ts'
import { errorFlag, type LogRecord } from './record.ts'
import { characterBoundary } from './utf8.ts'

const newLine = 10
export const maxRowBytes = 64 * 1024

export interface RowRange {
  readonly start: number
  readonly end: number
  /** Where the next row begins. */
  readonly next: number
  readonly partial: boolean
}

/** The row of `payload` that begins at `start`: one line, or at most 64 KiB of it. */
export function rowAt(payload: Buffer, start: number): RowRange {
  const found = payload.indexOf(newLine, start)
  const end = found < 0 ? payload.length : found
  if (end - start > maxRowBytes) {
    const cut = characterBoundary(payload, start + maxRowBytes)
    return { start, end: cut, next: cut, partial: true }
  }
  return { start, end, next: found < 0 ? end : end + 1, partial: found < 0 }
}

/** A row as the API gives it. */
export function presentRow(record: LogRecord, range: RowRange): LogRow {
  const bytes = record.payload.subarray(range.start, range.end)
  return {
    timestamp: timestamp(record.timeMs),
    level: record.source === 'stderr' || (record.flags & errorFlag) !== 0 ? 'error' : 'info',
    message: bytes.toString('utf8'),
    source: record.source,
    ...(range.partial ? { partial: true as const } : {}),
    ...(isUtf8(bytes) ? {} : { base64: bytes.toString('base64') }),
  }
}
