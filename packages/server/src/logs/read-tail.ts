import type { OutputSource } from '@mags/protocol'
import type { LogBytes } from './cursor.ts'
import { claimedBytes, decodeRecord, headerBytes, type LogRecord, maxPayloadBytes } from './record.ts'

const newLine = 10

/**
 * The last lines of a log, oldest first, without reading what lies before them: at most `lines` and `bytes`, of which the oldest line may be cut off at its beginning. A log can contain bytes that look like records of ours;
 * whoever writes such bytes may see other lines of their own output here.
 */
export async function readTail(
  log: LogBytes,
  options: { readonly lines: number; readonly bytes: number; readonly sources: readonly OutputSource[] },
): Promise<string[]> {
  const size = await log.size()
  const window = Math.min(size, options.bytes + headerBytes + maxPayloadBytes)
  const block = await readWhole(log, size - window, window)
  const records = decodeFrom(block, window === size ? 0 : firstRecord(block))
  const lines: string[] = []
  let bytes = 0
  for (const record of records.reverse()) {
    if (!options.sources.includes(record.source)) continue
    const { payload } = record
    let end = payload.at(-1) === newLine ? payload.length - 1 : payload.length
    while (end >= 0) {
      const start = end === 0 ? 0 : payload.lastIndexOf(newLine, end - 1) + 1
      const room = options.bytes - bytes
      if (lines.length >= options.lines || room <= 0) return lines.reverse()
      lines.push(payload.subarray(Math.max(start, end - room), end).toString('utf8'))
      bytes += end - start + 1
      end = start - 1
    }
  }
  return lines.reverse()
}

async function readWhole(log: LogBytes, from: number, length: number): Promise<Buffer> {
  const parts: Buffer[] = []
  let filled = 0
  while (filled < length) {
    const part = (await log.read(from + filled, length - filled)).subarray(0, length - filled)
    if (part.length === 0) break
    parts.push(part)
    filled += part.length
  }
  return Buffer.concat(parts)
}

function decodeFrom(block: Buffer, start: number): LogRecord[] {
  const records: LogRecord[] = []
  for (let at = start; at < block.length; ) {
    const record = decodeRecord(block, at)
    if (record === undefined || typeof record === 'number') break
    records.push(record)
    at += headerBytes + record.payload.length
  }
  return records
}

/** Where the first record begins of those that follow each other to the end of the block. Each place is looked at once. */
function firstRecord(block: Buffer): number {
  const leadsNowhere = new Uint8Array(block.length)
  for (let start = 0; start < block.length; start++) {
    const seen: number[] = []
    let at = start
    while (at < block.length && leadsNowhere[at] === 0) {
      seen.push(at)
      at += claimedBytes(block, at) ?? block.length + 1
    }
    if (at === block.length) return start
    for (const place of seen) leadsNowhere[place] = 1
  }
  return block.length
}
