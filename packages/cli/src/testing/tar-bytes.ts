import { writePaxRecords } from '../archive/pax-records.ts'
import { padding } from '../archive/read-tar.ts'
import { blockBytes, writeHeader } from '../archive/tar-header.ts'

/** An entry for an archive that is put together by hand; nothing in it is checked. */
export interface HandmadeEntry {
  readonly path: string
  /** The type flag of the header; default `0`, a file. */
  readonly flag?: string
  readonly target?: string
  readonly mode?: number
  readonly content?: string | Buffer
  /** What the header says, where that is not the truth. */
  readonly sizeBytes?: number
  /** An extended header before it. */
  readonly pax?: Readonly<Record<string, string>>
}

/** The bytes of an archive, with its end mark. */
export function tarBytes(...entries: readonly HandmadeEntry[]): Buffer {
  return Buffer.concat([...entries.map(entryBytes), Buffer.alloc(2 * blockBytes)])
}

function entryBytes({ path, flag = '0', target = '', mode = 0o644, content = '', sizeBytes, pax }: HandmadeEntry): Buffer {
  const body = Buffer.from(content)
  const records = pax === undefined ? Buffer.alloc(0) : writePaxRecords(new Map(Object.entries(pax)))
  const extended = pax === undefined ? [] : [writeHeader('x', { path: 'pax', target: '', mode: 0, modifiedAt: 0, sizeBytes: records.length }), padded(records)]
  const header = writeHeader(flag, { path, target, mode, modifiedAt: 1_700_000_000, sizeBytes: sizeBytes ?? body.length })
  return Buffer.concat([...extended, header, padded(body)])
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(padding(bytes.length))])
}

/** The same bytes in parts of `size`. */
export async function* inParts(bytes: Buffer, size = 700): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}
