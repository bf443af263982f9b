import { hash } from 'node:crypto'
import { promisify } from 'node:util'
import { constants, zstdCompress, zstdDecompress } from 'node:zlib'
import { MagsError } from '@mags/protocol'
import { StoredFields } from './stored-fields.ts'

const compress = promisify(zstdCompress)
const decompress = promisify(zstdDecompress)
const magic = Buffer.from('MGSD\x01', 'latin1')
const digestBytes = 32

/** The kinds of documents, with the most they may be when unpacked. */
export interface DocumentKind {
  readonly name: 'head' | 'version' | 'collector'
  readonly maxBytes: number
}

/**
 * A small document as an object: `MGSD` 0x01, SHA-256 of what follows (32), JSON in zstd. The JSON names its kind and the format it is in. The same contents give the same bytes.
 *
 * Rejects with MagsError('workspace_not_savable') when it is too large.
 */
export async function encodeDocument(kind: DocumentKind, format: number, contents: Readonly<Record<string, unknown>>): Promise<Buffer> {
  const text = Buffer.from(JSON.stringify({ kind: kind.name, format, ...contents }))
  if (text.length > kind.maxBytes)
    throw new MagsError(
      'workspace_not_savable',
      `The workspace has too many files to be saved: its ${kind.name} would be ${text.length} bytes, ${kind.maxBytes} are allowed.`,
    )
  const packed = await compress(text, { params: { [constants.ZSTD_c_compressionLevel]: 3 } })
  return Buffer.concat([magic, hash('sha256', packed, 'buffer'), packed])
}

/**
 * Every format ever written has a reader in `readers`, the key is its number.
 *
 * Rejects with MagsError('workspace_damaged') naming the object when it is not what was written.
 */
export async function decodeDocument<T>(
  kind: DocumentKind,
  key: string,
  bytes: Buffer,
  readers: Readonly<Record<number, (fields: StoredFields) => T>>,
): Promise<T> {
  try {
    if (!bytes.subarray(0, magic.length).equals(magic)) throw new Error('it is no document of Mags')
    const packed = bytes.subarray(magic.length + digestBytes)
    if (!hash('sha256', packed, 'buffer').equals(bytes.subarray(magic.length, magic.length + digestBytes))) throw new Error('its checksum is wrong')
    const text = await decompress(packed, { maxOutputLength: kind.maxBytes })
    const fields = new StoredFields(JSON.parse(text.toString('utf8')))
    fields.text('kind', new RegExp(`^${kind.name}$`))
    const reader = readers[fields.integer('format')]
    if (!reader) throw new Error(`it is of format ${fields.integer('format')}, which this release does not know; use a newer one`)
    return reader(fields)
  } catch (error) {
    throw damagedObject(key, (error as Error).message, error)
  }
}

export function damagedObject(key: string, how: string, cause?: unknown): MagsError {
  return new MagsError('workspace_damaged', `The object ${key} cannot be read: ${how}.`, { details: { object: key }, cause })
}
