import { ByteReader } from './byte-reader.ts'
import { type PaxRecords, readPaxRecords } from './pax-records.ts'
import type { TarEntry } from './tar-entry.ts'
import { TarError } from './tar-error.ts'
import { blockBytes, type RawHeader, readHeader } from './tar-header.ts'

export interface ReadLimits {
  /** Of all entries together. */
  readonly maxTotalBytes: number
  readonly maxEntries: number
}

export const defaultReadLimits: ReadLimits = { maxTotalBytes: 2 ** 40, maxEntries: 2_000_000 }

/** Of one extended header or long name. Linux takes no path over 4,096 bytes. */
const maxExtendedBytes = 64 * 1024
const drainBytes = 1024 * 1024

/** An entry with its content, which is read at once or passed over. */
export interface ReadEntry extends TarEntry {
  readonly content: AsyncIterable<Uint8Array>
}

/**
 * Reads a tar archive (ustar, pax, and GNU's long names) as it comes. What stands in it is not judged here beyond its form and the limits:
 * names may be anything. Throws TarError for what is damaged, cut short, or over a limit.
 */
export async function* readTar(bytes: AsyncIterable<Uint8Array>, limits: ReadLimits = defaultReadLimits): AsyncGenerator<ReadEntry> {
  const reader = new ByteReader(bytes)
  let extended: Extended = {}
  let totalBytes = 0
  let headers = 0
  try {
    for (;;) {
      const block = await reader.block(blockBytes)
      if (block === undefined) throw new TarError('The archive ends too early: its end mark is missing. Copy it again.')
      const header = readHeader(block)
      if (header === undefined) {
        await reader.drain(drainBytes)
        return
      }
      headers += 1
      if (headers > limits.maxEntries * 2) throw new TarError(`The archive has more than ${limits.maxEntries.toLocaleString('en-US')} entries.`)
      if (isExtended(header)) {
        extended = { ...extended, ...(await readExtended(reader, header)) }
        continue
      }
      const entry = entryFrom(header, extended)
      extended = {}
      totalBytes += entry.sizeBytes
      if (totalBytes > limits.maxTotalBytes) throw new TarError(`The archive holds more than ${limits.maxTotalBytes.toLocaleString('en-US')} bytes.`)
      const content = new Content(reader, entry.sizeBytes)
      yield { ...entry, content }
      await content.passOver()
      await reader.skip(padding(entry.sizeBytes))
    }
  } finally {
    await reader.close()
  }
}

/** What extended headers say about the entry that follows. */
interface Extended {
  readonly path?: string
  readonly target?: string
  readonly records?: PaxRecords
}

function isExtended({ typeFlag }: RawHeader): boolean {
  return typeFlag === 'x' || typeFlag === 'g' || typeFlag === 'L' || typeFlag === 'K'
}

async function readExtended(reader: ByteReader, { typeFlag, sizeBytes }: RawHeader): Promise<Extended> {
  if (sizeBytes > maxExtendedBytes)
    throw new TarError(`The archive has a name or an extended header of ${sizeBytes.toLocaleString('en-US')} bytes; that is refused.`)
  const body = (await reader.block(sizeBytes)) ?? Buffer.alloc(0)
  if (body.length !== sizeBytes) throw new TarError('The archive ends too early, within an extended header.')
  await reader.skip(padding(sizeBytes))
  if (typeFlag === 'L') return { path: untilNul(body) }
  if (typeFlag === 'K') return { target: untilNul(body) }
  // Global ones would hold for all that follows; nothing that we use may stand there.
  return typeFlag === 'g' ? {} : { records: readPaxRecords(body) }
}

function entryFrom(header: RawHeader, { path, target, records }: Extended): TarEntry {
  const type = typeOf(header.typeFlag, records?.get('path') ?? path ?? header.path)
  const sizeBytes = numberFrom(records?.get('size'), /^\d{1,15}$/) ?? header.sizeBytes
  if (records?.has('GNU.sparse.major') || records?.has('GNU.sparse.map'))
    throw new TarError('The archive has sparse files in a form of their own; that is not read.')
  return {
    type,
    path: records?.get('path') ?? path ?? header.path,
    target: type === 'symlink' || type === 'hardlink' ? (records?.get('linkpath') ?? target ?? header.target) : '',
    mode: header.mode,
    modifiedAt: numberFrom(records?.get('mtime'), /^-?\d{1,15}(\.\d{1,20})?$/) ?? header.modifiedAt,
    // Of links and folders it means nothing, or not the same to everybody; content of theirs would be mistaken for headers.
    sizeBytes: type === 'file' || type === 'other' ? sizeBytes : 0,
  }
}

function typeOf(typeFlag: string, path: string): TarEntry['type'] {
  if (typeFlag === '5') return 'directory'
  if (typeFlag === '2') return 'symlink'
  if (typeFlag === '1') return 'hardlink'
  // Before ustar a folder was a file whose name ends with a slash.
  if (typeFlag === '0' || typeFlag === '\0' || typeFlag === '7') return path.endsWith('/') ? 'directory' : 'file'
  return 'other'
}

function numberFrom(text: string | undefined, form: RegExp): number | undefined {
  if (text === undefined) return undefined
  if (!form.test(text)) throw new TarError('The archive is damaged: a number in an extended header is none.')
  return Number(text)
}

function untilNul(body: Buffer): string {
  const text = body.toString('latin1')
  const end = text.indexOf('\0')
  return end === -1 ? text : text.slice(0, end)
}

/** How many bytes fill the last block. */
export function padding(sizeBytes: number): number {
  return (blockBytes - (sizeBytes % blockBytes)) % blockBytes
}

/** The content of one entry: read at most once, and what was not read is passed over. */
class Content implements AsyncIterable<Uint8Array> {
  readonly #parts: AsyncGenerator<Uint8Array>

  constructor(reader: ByteReader, sizeBytes: number) {
    this.#parts = reader.bytes(sizeBytes)
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    return { next: () => this.#parts.next() }
  }

  async passOver(): Promise<void> {
    for await (const _part of this.#parts) {
      // Only passed over.
    }
  }
}
