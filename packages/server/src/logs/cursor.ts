import { MagsError } from '@mags/protocol'
import { decodeRecord, headerBytes, maxPayloadBytes } from './record.ts'
import { rowAt } from './split-rows.ts'

/** A place in a log between two rows: the offset of a record in its file, and of a row in the record's payload. */
export interface Position {
  readonly record: number
  readonly byte: number
}

/** Where log bytes come from: a file, or the memory of a job that runs. */
export interface LogBytes {
  /** Bytes of whole records that can be read now. */
  size(): Promise<number> | number
  /** At most `length` bytes from `position`, which is the beginning of a record; fewer at the end. */
  read(position: number, length: number): Promise<Buffer>
}

export const beginning: Position = { record: 0, byte: 0 }

export const formatCursor = (position: Position) => `${position.record}.${position.byte}`

/** The position a client sent back. Rejects with MagsError('bad_request') unless it is a place between two rows of this log. */
export async function parseCursor(cursor: string, log: LogBytes): Promise<Position> {
  const [, record, byte] = /^(\d{1,15})\.(\d{1,7})$/.exec(cursor) ?? []
  const position = { record: Number(record), byte: Number(byte) }
  if (record === undefined || byte === undefined || !(await isBetweenRows(position, log))) {
    throw new MagsError('bad_request', 'after: this cursor is not one of this log; leave it out to read from the beginning')
  }
  return position
}

async function isBetweenRows(position: Position, log: LogBytes): Promise<boolean> {
  const size = await log.size()
  if (position.record >= size) return position.record === size && position.byte === 0
  const block = await log.read(position.record, headerBytes + maxPayloadBytes)
  const record = decodeRecord(block, 0)
  if (record === undefined || typeof record === 'number') return false
  let at = 0
  while (at < position.byte && at < record.payload.length) at = rowAt(record.payload, at).next
  return at === position.byte && at < record.payload.length
}
