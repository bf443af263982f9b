import { hash } from 'node:crypto'
import { promisify } from 'node:util'
import { constants, zstdCompress, zstdDecompress } from 'node:zlib'
import { FormatError, must } from '../tree/byte-reader.ts'

const compress = promisify(zstdCompress)
const decompress = promisify(zstdDecompress)

/** Most raw bytes of a block of file contents. */
export const blockBytes = 1024 * 1024
/** Most raw bytes of a segment of a tree, which is stored like a block. */
export const maxSegmentBytes = 16 * 1024 * 1024
export const blockHeaderBytes = 44

/** So that everything fits into the first buffer of the codec; with its usual small ones it is twice as slow. */
const spareBytes = 8 * 1024
const magic = 0x424d
const formatNumber = 1
const codecs = { plain: 0, zstd: 1 } as const

/** SHA-256, 32 bytes. */
export function sha256(bytes: Uint8Array): Buffer {
  return hash('sha256', bytes, 'buffer')
}

/** Header and payload of one block as they lie in a pack; `digest` is the SHA-256 of `raw`. */
export async function encodeBlock(raw: Uint8Array, digest: Uint8Array): Promise<readonly [Buffer, Uint8Array]> {
  const packed = await compress(raw, { chunkSize: raw.length + spareBytes, params: { [constants.ZSTD_c_compressionLevel]: 1 } })
  const shrunk = packed.length < raw.length
  const payload = shrunk ? packed : raw
  const header = Buffer.alloc(blockHeaderBytes)
  header.writeUInt16LE(magic, 0)
  header[2] = formatNumber
  header[3] = shrunk ? codecs.zstd : codecs.plain
  header.writeUInt32LE(raw.length, 4)
  header.writeUInt32LE(payload.length, 8)
  header.set(digest, 12)
  return [header, payload]
}

/** What a reader expects of a block, from where it was named. `digest` may be the beginning only. */
export interface ExpectedBlock {
  readonly rawBytes: number
  readonly digest: Uint8Array
}

/** The raw bytes; `stored` is exactly header and payload. Throws FormatError for anything that is not what was written. */
export async function decodeBlock(stored: Buffer, expected: ExpectedBlock): Promise<Buffer> {
  must(stored.length > blockHeaderBytes && stored.readUInt16LE(0) === magic, 'it is no block')
  must(stored[2] === formatNumber, `it has format ${stored[2]}, which this program does not know; a newer one may`)
  const payload = stored.subarray(blockHeaderBytes)
  must(stored.readUInt32LE(4) === expected.rawBytes && stored.readUInt32LE(8) === payload.length, 'its length is another one')
  const digest = stored.subarray(12, blockHeaderBytes)
  must(digest.subarray(0, expected.digest.length).equals(expected.digest), 'it is another block')
  const raw = await plain(stored[3], payload, expected.rawBytes)
  must(raw.length === expected.rawBytes && sha256(raw).equals(digest), 'its bytes do not match their hash')
  return raw
}

async function plain(codec: number | undefined, payload: Buffer, rawBytes: number): Promise<Buffer> {
  if (codec === codecs.plain) return payload
  must(codec === codecs.zstd, 'its compression is unknown')
  try {
    return await decompress(payload, { maxOutputLength: rawBytes, chunkSize: rawBytes + spareBytes })
  } catch {
    throw new FormatError('it cannot be decompressed')
  }
}
