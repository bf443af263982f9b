import type { ExtendedAttribute } from '../../layers/layer-session.ts'
import type { ByteReader } from './byte-reader.ts'
import { imageInvalid } from './image-invalid.ts'
import { type PaxRecords, readPaxRecords } from './pax-records.ts'
import { blockBytes, readTarHeader, type TarHeader } from './tar-header.ts'

/** One entry of a tar archive. Nothing in it is checked but that it could be read. */
export interface TarEntry {
  readonly kind: 'file' | 'hard-link' | 'symlink' | 'character-device' | 'block-device' | 'directory' | 'fifo'
  /** As it stands there; a character for each byte. */
  readonly path: string
  readonly target: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly sizeBytes: number
  readonly mtimeNs: bigint
  readonly attributes: readonly ExtendedAttribute[]
  readonly deviceMajor: number
  readonly deviceMinor: number
  /** A file's bytes. What is not taken before the next entry is asked for is left out. */
  content(): AsyncIterable<Buffer>
}

const kinds: Readonly<Record<string, TarEntry['kind']>> = {
  '0': 'file',
  '\0': 'file',
  '7': 'file',
  '1': 'hard-link',
  '2': 'symlink',
  '3': 'character-device',
  '4': 'block-device',
  '5': 'directory',
  '6': 'fifo',
}
const longestHeaderBytes = 1 << 20

/** Hears of every header before what follows it is read, with the bytes of one that only extends another (0 for an entry's own). */
export type OnHeader = (extensionBytes: number) => Promise<void>

/**
 * The entries of a tar archive: ustar, pax and GNU's long names. Ours, because what is checked and what is written must come from one reading, and because attributes (file capabilities) are bytes that
 * readers made for text lose. Rejects with 'image_invalid' naming the entry and the rule; nothing that is not understood is passed over.
 */
export async function* readTar(reader: ByteReader, onHeader: OnHeader = async () => undefined): AsyncGenerator<TarEntry> {
  const extra: { pax: PaxRecords | undefined; name: string | undefined; target: string | undefined } = { pax: undefined, name: undefined, target: undefined }
  for (let count = 0; ; ) {
    const block = await reader.read(blockBytes)
    if (block.length === 0 || block.every((byte) => byte === 0)) break
    const header = block.length < blockBytes ? undefined : readTarHeader(block)
    if (header === undefined)
      throw imageInvalid(
        count === 0 ? 'this is no tar archive, plain or compressed with gzip, xz, zstd or bzip2' : `after ${count} entries the archive is damaged`,
      )
    count++
    const { type } = header
    await onHeader('xgLK'.includes(type) ? blockBytes + Math.max(0, header.sizeBytes) : 0)
    if (type === 'x') extra.pax = readPaxRecords(await contentOf(reader, header))
    else if (type === 'g') checkGlobal(readPaxRecords(await contentOf(reader, header)))
    else if (type === 'L') extra.name = untilNul(await contentOf(reader, header))
    else if (type === 'K') extra.target = untilNul(await contentOf(reader, header))
    else {
      yield* entryOf(reader, header, extra)
      extra.pax = undefined
      extra.name = undefined
      extra.target = undefined
    }
  }
  await reader.drain()
}

async function* entryOf(reader: ByteReader, header: TarHeader, extra: { pax: PaxRecords | undefined; name: string | undefined; target: string | undefined }) {
  const { pax } = extra
  const path = pax?.path ?? extra.name ?? header.name
  if (header.type === 'S' || pax?.keys.some((key) => key.startsWith('GNU.sparse')))
    throw imageInvalid("sparse files in GNU's form are not read; make the archive without --sparse", path)
  const kind = kinds[header.type] === 'file' && header.type !== '7' && path.endsWith('/') ? 'directory' : kinds[header.type]
  if (kind === undefined) throw imageInvalid(`entries of type ${JSON.stringify(header.type)} cannot be in an image`, path)
  const claimed = pax?.sizeBytes ?? header.sizeBytes
  if (claimed < 0) throw imageInvalid(`its size is ${claimed}`, path)
  const sizeBytes = kind === 'file' ? claimed : 0
  let left = sizeBytes
  yield {
    kind,
    path,
    target: pax?.linkPath ?? extra.target ?? header.linkName,
    mode: header.mode,
    uid: pax?.uid ?? header.uid,
    gid: pax?.gid ?? header.gid,
    sizeBytes,
    mtimeNs: pax?.mtimeNs ?? BigInt(header.mtime) * 1_000_000_000n,
    attributes: pax?.attributes ?? [],
    deviceMajor: header.deviceMajor,
    deviceMinor: header.deviceMinor,
    async *content() {
      for await (const piece of reader.pieces(left)) {
        left -= piece.length
        yield piece
      }
    },
  } satisfies TarEntry
  for await (const piece of reader.pieces(left)) left -= piece.length
  if (left > 0) throw imageInvalid('the archive ends in the middle of it', path)
  await reader.read((blockBytes - (sizeBytes % blockBytes)) % blockBytes)
}

async function contentOf(reader: ByteReader, { sizeBytes, name }: TarHeader): Promise<Buffer> {
  if (sizeBytes < 0 || sizeBytes > longestHeaderBytes) throw imageInvalid(`an extended header of ${sizeBytes} bytes; at most 1 MiB`, name)
  const bytes = await reader.read(sizeBytes)
  if (bytes.length < sizeBytes) throw imageInvalid('the archive ends in the middle of a header')
  await reader.read((blockBytes - (sizeBytes % blockBytes)) % blockBytes)
  return bytes
}

/** It would be for all entries after it; what makers of archives put there are comments. */
function checkGlobal({ keys }: PaxRecords) {
  const meant = keys.find((key) => /^(path|linkpath|size|uid|gid)$|^SCHILY\.|^GNU\./.test(key))
  if (meant !== undefined) throw imageInvalid(`a header for all entries that sets ${JSON.stringify(meant)} is not read`)
}

function untilNul(bytes: Buffer): string {
  const end = bytes.indexOf(0)
  return bytes.toString('latin1', 0, end < 0 ? bytes.length : end)
}
