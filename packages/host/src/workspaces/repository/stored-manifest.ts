import { MagsError } from '@mags/protocol'
import { readImage } from './head.ts'
import type { Manifest, PackId } from './repository.ts'
import { type DocumentKind, decodeDocument, encodeDocument } from './stored-document.ts'
import { StoredFields } from './stored-fields.ts'

/** A manifest with the name of the copy of each pack that was there when it was written; empty where that is not known. */
export interface StoredManifest {
  readonly manifest: Manifest
  readonly copies: readonly string[]
}

const kind: DocumentKind = { name: 'version', maxBytes: 48 << 20 }
const format = 1
const maxPacks = 400_000
const maxSegments = 400_000
const sha256 = /^[0-9a-f]{64}$/

/** Segments name their pack by its place in `packs`: `[pack, offset, length, raw, sha256]`. */
export async function encodeManifest({ manifest, copies }: StoredManifest): Promise<Buffer> {
  const places = new Map(manifest.packs.map((id, index) => [id, index]))
  const segments = manifest.segments.map((segment) => [places.get(segment.pack), segment.offset, segment.lengthBytes, segment.rawBytes, segment.sha256])
  const contents = { image: manifest.image, size_bytes: manifest.sizeBytes, entry_count: manifest.entryCount, packs: manifest.packs, copies, segments }
  try {
    readManifest(new StoredFields({ kind: kind.name, format, ...contents }))
  } catch (error) {
    // Better refused now than unreadable later.
    throw new MagsError('internal', `A version was to be saved that could not be read again: ${(error as Error).message}.`, { cause: error })
  }
  return encodeDocument(kind, format, contents)
}

/** Rejects with MagsError('workspace_damaged') naming the object. */
export function decodeManifest(key: string, bytes: Buffer): Promise<StoredManifest> {
  return decodeDocument(kind, key, bytes, { 1: readManifest })
}

function readManifest(fields: StoredFields): StoredManifest {
  fields.only('kind', 'format', 'image', 'size_bytes', 'entry_count', 'packs', 'copies', 'segments')
  const packs = fields.list('packs', maxPacks) as readonly PackId[]
  for (const [index, id] of packs.entries()) {
    if (typeof id !== 'string' || !sha256.test(id) || (index > 0 && id <= (packs[index - 1] ?? ''))) throw new Error(`packs[${index}] is no pack in order`)
  }
  const copies = fields.list('copies', maxPacks) as readonly string[]
  if (copies.length !== packs.length || !copies.every((copy) => typeof copy === 'string' && /^([0-9a-f]{16})?$/.test(copy)))
    throw new Error('copies do not belong to packs')
  const segments = fields.list('segments', maxSegments).map((segment, index) => readSegment(segment, packs, index))
  const manifest = { image: readImage(fields), sizeBytes: fields.integer('size_bytes'), entryCount: fields.integer('entry_count'), segments, packs }
  return { manifest, copies }
}

function readSegment(value: unknown, packs: readonly PackId[], index: number): Manifest['segments'][number] {
  const [place, offset, lengthBytes, rawBytes, digest] = Array.isArray(value) && value.length === 5 ? (value as unknown[]) : []
  const pack = typeof place === 'number' ? packs[place] : undefined
  const isSize = (size: unknown): size is number => Number.isSafeInteger(size) && (size as number) >= 0 && (size as number) <= 2 ** 40
  if (pack === undefined || !isSize(offset) || !isSize(lengthBytes) || !isSize(rawBytes) || typeof digest !== 'string' || !sha256.test(digest))
    throw new Error(`segments[${index}] is not as it should be`)
  return { pack, offset, lengthBytes, rawBytes, sha256: digest }
}
