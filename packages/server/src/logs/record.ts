import { crc32 } from 'node:zlib'
import type { OutputSource } from '@mags/protocol'

/**
 * One record of a job's log file: a header of 28 bytes, little endian, and the raw bytes of whole lines.
 *
 *     0  u8   magic 0xa7          8  f64  wall clock, ms since 1970
 *     1  u8   source             16  u64  offset of the first byte in its stream
 *     2  u8   flags              24  u32  CRC-32 of bytes 0–23 and the payload
 *     3  u8   version 1          28       payload
 *     4  u32  payload length
 *
 * Files are only appended to. A record that does not check at the end of a file is what a crash left; it is cut off when the file is opened for writing.
 */
export interface LogRecord {
  readonly source: OutputSource
  readonly flags: number
  readonly timeMs: number
  readonly streamOffset: number
  readonly payload: Buffer
}

/** The payload does not end with a new line. */
export const partialFlag = 1
/** A system row of level "error". */
export const errorFlag = 2
/** The system row that says the limit was reached. */
export const limitFlag = 4

/** The system row after which the job is tried again: the streams begin anew at offset 0. */
export const anewFlag = 8

export const headerBytes = 28
export const maxPayloadBytes = 256 * 1024

const magic = 0xa7
const version = 1
const sources: readonly OutputSource[] = ['stdout', 'stderr', 'system']

/** Writes a record into `target` at `at`, which has room for it; returns the offset after it. */
export function encodeRecord(record: LogRecord, target: Buffer, at: number): number {
  target[at] = magic
  target[at + 1] = sources.indexOf(record.source)
  target[at + 2] = record.flags
  target[at + 3] = version
  target.writeUInt32LE(record.payload.length, at + 4)
  target.writeDoubleLE(record.timeMs, at + 8)
  target.writeBigUInt64LE(BigInt(record.streamOffset), at + 16)
  record.payload.copy(target, at + headerBytes)
  const end = at + headerBytes + record.payload.length
  target.writeUInt32LE(crc32(target.subarray(at + headerBytes, end), crc32(target.subarray(at, at + 24))), at + 24)
  return end
}

/** How many bytes the record at `at` says it has, header included, without a look at its checksum; undefined when none can begin there. */
export function claimedBytes(block: Buffer, at: number): number | undefined {
  if (block.length - at < headerBytes || block[at] !== magic || block[at + 3] !== version || sources[block[at + 1] ?? 255] === undefined) return undefined
  const length = block.readUInt32LE(at + 4)
  return length > maxPayloadBytes ? undefined : headerBytes + length
}

/**
 * Reads the record at `at`. A number is how many bytes from `at` are needed to read it; undefined means that there is no valid record.
 * The payload is a view of `block`.
 */
export function decodeRecord(block: Buffer, at: number): LogRecord | number | undefined {
  if (block.length - at < headerBytes) return headerBytes
  const source = sources[block[at + 1] ?? 255]
  const length = block.readUInt32LE(at + 4)
  if (block[at] !== magic || block[at + 3] !== version || source === undefined || length > maxPayloadBytes) return undefined
  const end = at + headerBytes + length
  if (end > block.length) return end - at
  const payload = block.subarray(at + headerBytes, end)
  if (crc32(payload, crc32(block.subarray(at, at + 24))) !== block.readUInt32LE(at + 24)) return undefined
  return { source, flags: block[at + 2] ?? 0, timeMs: block.readDoubleLE(at + 8), streamOffset: Number(block.readBigUInt64LE(at + 16)), payload }
}

/** How long it is in a file. */
export const recordBytes = (record: LogRecord) => headerBytes + record.payload.length
