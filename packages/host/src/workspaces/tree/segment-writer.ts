import { MagsError } from '@mags/protocol'
import { encodeBlock, maxSegmentBytes, sha256 } from '../blocks/block-codec.ts'
import type { BlockTable } from '../blocks/block-table.ts'
import type { OpenPack, PackWriter } from '../blocks/pack-writer.ts'
import type { Manifest } from '../repository/repository.ts'
import type { SegmentPlace } from './read-tree.ts'
import { SegmentEncoder } from './segment-codec.ts'
import { hole, type TreeRecord } from './tree-record.ts'

const minBytes = 16 * 1024
const softMaxBytes = 128 * 1024
/** One path in so many ends a segment, whatever is around it. */
const cutEvery = 512
const parallelSegments = 16

type Segment = SegmentPlace | (Omit<SegmentPlace, 'pack'> & { readonly open: OpenPack })

/** Cuts a tree into segments and stores those that are not stored yet. */
export class SegmentWriter {
  readonly #packs: PackWriter
  readonly #known: ReadonlyMap<string, SegmentPlace>
  readonly #blocks: BlockTable
  readonly #encoder: SegmentEncoder
  readonly #segments: Promise<Segment>[] = []
  readonly #usedPacks = new Set<string>()
  #lastBlock = hole
  #sizeBytes = 0
  #entryCount = 0
  #newSegments = 0

  /** `before`: segments that the store has, of the version before. Every block must be in a sealed pack of `blocks`. */
  constructor(packs: PackWriter, before: readonly SegmentPlace[], blocks: BlockTable) {
    this.#packs = packs
    this.#known = new Map(before.map((place) => [place.sha256, place]))
    this.#blocks = blocks
    this.#encoder = new SegmentEncoder(blocks)
  }

  /** Segments that were not there before. */
  get newSegments(): number {
    return this.#newSegments
  }

  add(record: TreeRecord): void {
    this.#encoder.add(record)
    this.#entryCount++
    this.#sizeBytes += record.sizeBytes
    for (const { block } of record.extents) {
      if (block === hole || block === this.#lastBlock) continue
      this.#lastBlock = block
      this.#usedPacks.add(this.#blocks.pack(block))
    }
    const length = this.#encoder.length
    if (length > softMaxBytes || (length >= minBytes && pathHash(record.path) % cutEvery === 0)) this.#cut()
  }

  /** Settles once there is room for more. */
  async room(): Promise<void> {
    await this.#segments.at(-parallelSegments)
    await this.#packs.room()
  }

  /** Everything stored; the tree's description. */
  async finish(image: Manifest['image']): Promise<Manifest> {
    if (this.#encoder.entries > 0) this.#cut()
    const segments = await Promise.all(this.#segments)
    await this.#packs.finish()
    const places = segments.map((segment): SegmentPlace => {
      if ('pack' in segment) return segment
      const { open, ...rest } = segment
      if (open.id === undefined) throw new Error('a segment is in a pack that is not stored')
      return { pack: open.id, ...rest }
    })
    for (const { pack } of places) this.#usedPacks.add(pack)
    return { image, sizeBytes: this.#sizeBytes, entryCount: this.#entryCount, segments: places, packs: [...this.#usedPacks].sort() }
  }

  #cut(): void {
    const raw = this.#encoder.take()
    if (raw.length > maxSegmentBytes)
      throw new MagsError('workspace_not_savable', 'One path of the workspace has too many parts to be saved. Copy its largest sparse file anew, or remove it.')
    const digest = sha256(raw)
    const sha256Hex = digest.toString('hex')
    const known = this.#known.get(sha256Hex)
    if (known !== undefined) this.#segments.push(Promise.resolve(known))
    else {
      this.#newSegments++
      const before = this.#segments.at(-1)
      const stored = this.#store(raw, digest, sha256Hex, before)
      stored.catch(() => undefined)
      this.#segments.push(stored)
    }
  }

  /** In order, so that the same tree gives the same packs. */
  async #store(raw: Buffer, digest: Buffer, sha256Hex: string, before: Promise<unknown> | undefined): Promise<Segment> {
    const parts = await encodeBlock(raw, digest)
    await before
    const { pack, offset } = this.#packs.append(parts)
    return { open: pack, offset, lengthBytes: parts[0].length + parts[1].length, rawBytes: raw.length, sha256: sha256Hex }
  }
}

/** FNV-1a, 32 bits. */
function pathHash(path: Buffer): number {
  let hash = 0x811c9dc5
  for (const byte of path) hash = Math.imul(hash ^ byte, 0x01000193)
  return hash >>> 0
}
