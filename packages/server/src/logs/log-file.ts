import { constants } from 'node:fs'
import { type FileHandle, mkdir, open, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { LogBytes } from './cursor.ts'
import { anewFlag, decodeRecord, headerBytes, type LogRecord, limitFlag, maxPayloadBytes } from './record.ts'

/** The log of a job that is over. A file that is not there is an empty log. */
export function logFile(path: string): LogBytes {
  return {
    size: async () => (await stat(path).catch(ignoreMissing))?.size ?? 0,
    read: (position, length) => readRange(path, position, length),
  }
}

/** For reading and writing; made when missing, with its folder. */
export async function openLogFile(path: string): Promise<FileHandle> {
  const openIt = () => open(path, constants.O_RDWR | constants.O_CREAT, 0o600)
  return await openIt().catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
    await mkdir(dirname(path), { recursive: true, mode: 0o700 })
    return await openIt()
  })
}

export async function readRange(path: string, position: number, length: number): Promise<Buffer> {
  await using file = await open(path, 'r')
  const block = Buffer.allocUnsafe(length)
  let filled = 0
  while (filled < length) {
    const { bytesRead } = await file.read(block, filled, length - filled, position + filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return block.subarray(0, filled)
}

export interface LogSummary {
  /** Bytes of whole records. */
  readonly size: number
  /** Bytes of each stream that are in them, from the script's start; of the last try. */
  readonly stdout: number
  readonly stderr: number
  readonly limitReached: boolean
}

/** Walks over a log from its beginning up to the first record that is not whole. */
export async function summarizeLog(path: string): Promise<LogSummary> {
  const summary = { size: 0, stdout: 0, stderr: 0, limitReached: false }
  const total = (await stat(path).catch(ignoreMissing))?.size ?? 0
  while (summary.size < total) {
    const block = await readRange(path, summary.size, Math.min(total - summary.size, 4 * (headerBytes + maxPayloadBytes)))
    const taken = addRecords(summary, block)
    if (taken === 0) break
    summary.size += taken
  }
  return summary
}

function addRecords(summary: { stdout: number; stderr: number; limitReached: boolean }, block: Buffer): number {
  let at = 0
  for (let record = decodeRecord(block, at); isRecord(record); record = decodeRecord(block, at)) {
    if (record.source !== 'system') summary[record.source] = record.streamOffset + record.payload.length
    if ((record.flags & limitFlag) !== 0) summary.limitReached = true
    if ((record.flags & anewFlag) !== 0) Object.assign(summary, { stdout: 0, stderr: 0 })
    at += headerBytes + record.payload.length
  }
  return at
}

const isRecord = (value: LogRecord | number | undefined): value is LogRecord => typeof value === 'object'

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
}
