import { decodeBlock, maxSegmentBytes } from '../blocks/block-codec.ts'
import { BlockTable } from '../blocks/block-table.ts'
import type { Manifest, PackStore } from '../repository/repository.ts'
import { FormatError, must } from './byte-reader.ts'
import { damaged, readingFrom } from './damaged.ts'
import { decodeSegment } from './segment-codec.ts'
import { TreeChecker } from './tree-checker.ts'
import type { TreeRecord } from './tree-record.ts'

export type SegmentPlace = Manifest['segments'][number]

/** The raw bytes of segments, in the order asked; a pack is fetched once for neighbours in it, and the next one while the one before is used. */
export async function* readSegments(
  segments: readonly SegmentPlace[],
  packs: PackStore,
  abort?: AbortSignal,
): AsyncGenerator<{ readonly place: SegmentPlace; readonly raw: Buffer }> {
  let current: { readonly id: string; readonly bytes: Promise<Buffer> } | undefined
  let next: typeof current
  const fetch = (id: string): { readonly id: string; readonly bytes: Promise<Buffer> } => {
    const bytes = packs.get(id, abort)
    bytes.catch(() => undefined)
    return { id, bytes }
  }
  for (const [index, place] of segments.entries()) {
    abort?.throwIfAborted()
    if (current?.id !== place.pack) current = next?.id === place.pack ? next : fetch(place.pack)
    if (next === undefined || next === current) {
      const following = segments.slice(index, index + 64).find(({ pack }) => pack !== place.pack)
      next = following === undefined ? undefined : fetch(following.pack)
    }
    yield { place, raw: await segmentIn(await current.bytes, place) }
  }
}

async function segmentIn(pack: Buffer, place: SegmentPlace): Promise<Buffer> {
  try {
    must(place.offset + place.lengthBytes <= pack.length, 'it is not inside its pack')
    must(place.rawBytes <= maxSegmentBytes, 'it is too large')
    return await decodeBlock(pack.subarray(place.offset, place.offset + place.lengthBytes), {
      rawBytes: place.rawBytes,
      digest: Buffer.from(place.sha256, 'hex'),
    })
  } catch (error) {
    if (error instanceof FormatError) throw damaged(`a segment of its tree cannot be read because ${error.message}`, place.pack, place.offset, error)
    throw error
  }
}

/**
 * Every path of a version in tree order, some at a time; `blocks` gets the blocks that their extents name.
 * Rejects with MagsError('workspace_damaged') naming pack and offset.
 */
export async function* readTree(
  manifest: Manifest,
  packs: PackStore,
  blocks: BlockTable = new BlockTable(),
  abort?: AbortSignal,
): AsyncGenerator<TreeRecord[]> {
  const checker = new TreeChecker()
  for await (const { place, raw } of readSegments(manifest.segments, packs, abort)) {
    const batches = decodeSegment(raw, blocks)
    for (;;) {
      const batch = readingFrom(place.pack, place.offset, 'a segment of its tree', () => {
        const next = batches.next()
        if (next.done === true) return undefined
        for (const record of next.value) checker.see(record)
        return next.value
      })
      if (batch === undefined) break
      yield batch
    }
  }
}
