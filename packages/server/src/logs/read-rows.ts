import { setImmediate } from 'node:timers/promises'
import type { LogRow, OutputSource } from '@mags/protocol'
import { formatCursor, type LogBytes, type Position } from './cursor.ts'
import { decodeRecord, headerBytes } from './record.ts'
import { presentRow, rowAt } from './split-rows.ts'

export interface ReadRowsOptions {
  readonly from: Position
  readonly limit: number
  /** About how many bytes of messages at most. */
  readonly maxBytes: number
  readonly source?: OutputSource | undefined
}

export interface PlacedRow {
  readonly row: LogRow
  /** Cursor of the place after the row. */
  readonly cursor: string
}

export interface RowPage {
  readonly rows: PlacedRow[]
  readonly next: Position
  /** Whether everything written when the read began was read. */
  readonly complete: boolean
}

const blockBytes = 128 * 1024

/** Rows from a position on. Reads in blocks and gives way to other work between them; stops at a damaged record. */
export async function readRows(log: LogBytes, options: ReadRowsOptions): Promise<RowPage> {
  const size = await log.size()
  const rows: PlacedRow[] = []
  let position = options.from
  let bytes = 0
  let wanted = blockBytes
  for (let first = true; position.record < size; first = false) {
    if (!first) await setImmediate()
    const block = await log.read(position.record, Math.min(wanted, size - position.record))
    const start = position.record
    let at = 0
    for (;;) {
      const record = at < block.length ? decodeRecord(block, at) : headerBytes
      if (record === undefined) return { rows, next: position, complete: true }
      if (typeof record === 'number') {
        // The next record is not whole in this block. When it is the first, ask for more, unless there is no more.
        if (at === 0 && block.length < wanted) return { rows, next: position, complete: true }
        wanted = at === 0 ? record : blockBytes
        break
      }
      const after = start + at + headerBytes + record.payload.length
      let byte = position.byte
      while (byte < record.payload.length) {
        const range = rowAt(record.payload, byte)
        const next: Position = range.next < record.payload.length ? { record: start + at, byte: range.next } : { record: after, byte: 0 }
        if (options.source === undefined || options.source === record.source) {
          if (rows.length >= options.limit || bytes >= options.maxBytes) return { rows, next: position, complete: false }
          rows.push({ row: presentRow(record, range), cursor: formatCursor(next) })
          bytes += range.end - range.start + 100
        }
        byte = range.next
        position = next
      }
      position = { record: after, byte: 0 }
      at += headerBytes + record.payload.length
    }
  }
  return { rows, next: position, complete: true }
}
