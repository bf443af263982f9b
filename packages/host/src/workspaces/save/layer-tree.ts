import { digestBytes } from '../blocks/block-table.ts'
import { ByteReader } from '../tree/byte-reader.ts'
import { ByteWriter } from '../tree/byte-writer.ts'
import { type KnownBlocks, RecordDecoder } from '../tree/record-decoder.ts'
import { RecordEncoder } from '../tree/record-encoder.ts'
import { hole, type TreeRecord } from '../tree/tree-record.ts'

/**
 * What is known of a path of a layer.
 * `kept`: its record is complete. `unread`: the record is complete but for its contents, which must be read. `reread`: complete, but the stamp proves nothing, so its contents must be compared.
 * `removed`: it is gone (only in differences). `device`: it is there but not kept, and hides what lies under it.
 */
export type LayerStatus = 'kept' | 'unread' | 'reread' | 'removed' | 'device'
const statuses: readonly LayerStatus[] = ['kept', 'unread', 'reread', 'removed', 'device']

/** A path of a layer with what tells whether it has changed. */
export interface LayerRecord extends TreeRecord {
  readonly status: LayerStatus
  readonly inode: bigint
  readonly ctimeNs: bigint
  /** Of each extent that is no hole, the first bytes of its SHA-256; empty when not known. */
  readonly digests: Buffer
}

/** Records in tree order, packed: a million of them must fit into memory. */
export interface LayerTree {
  readonly count: number
  readonly chunks: readonly Buffer[]
}

export const emptyLayerTree: LayerTree = { count: 0, chunks: [] }

const chunkBytes = 64 * 1024
const nothing = Buffer.alloc(0)
/** These records never left this program: their blocks need no check. */
const ownBlocks: KnownBlocks = { count: 2 ** 33, rawBytes: () => Number.MAX_SAFE_INTEGER, number: (block) => block }

export class LayerTreeWriter {
  readonly #out = new ByteWriter(chunkBytes + 16 * 1024)
  readonly #chunks: Buffer[] = []
  #encoder = new RecordEncoder(this.#out)
  #count = 0

  get count(): number {
    return this.#count
  }

  add(record: LayerRecord): void {
    this.#count++
    const unread = record.status === 'unread' && record.sizeBytes > 0
    this.#encoder.write(unread ? { ...record, extents: [{ block: hole, position: 0, lengthBytes: record.sizeBytes }] } : record)
    this.#out.byte(statuses.indexOf(record.status))
    if (record.kind === 'file') {
      this.#out.u64(record.inode)
      this.#out.u64(record.ctimeNs)
      this.#out.sized(record.digests)
    }
    if (this.#out.length >= chunkBytes) this.#cut()
  }

  finish(): LayerTree {
    this.#cut()
    return { count: this.#count, chunks: this.#chunks }
  }

  #cut(): void {
    if (this.#out.length > 0) this.#chunks.push(this.#out.take())
    this.#encoder = new RecordEncoder(this.#out)
  }
}

export function* layerRecords(tree: LayerTree): Generator<LayerRecord> {
  for (const chunk of tree.chunks) {
    const input = new ByteReader(chunk)
    const decoder = new RecordDecoder(input, ownBlocks)
    while (input.left > 0) {
      const record = decoder.read()
      const status = statuses[input.byte()] ?? 'unread'
      const isFile = record.kind === 'file'
      const inode = isFile ? input.u64() : 0n
      const ctimeNs = isFile ? BigInt.asIntN(64, input.u64()) : 0n
      const digests = isFile ? input.sized(chunk.length) : nothing
      yield { ...record, status, inode, ctimeNs, digests: digests.length === 0 ? nothing : digests }
    }
  }
}

/** What a removed path, a device or a path of which only its name counts is written as. */
export function bareRecord(path: Buffer, status: LayerStatus): LayerRecord {
  const time = { mtimeNs: 0n, ctimeNs: 0n, inode: 0n }
  return { path, kind: 'whiteout', mode: 0, uid: 0, gid: 0, sizeBytes: 0, attributes: [], linkGroup: 0n, extents: [], digests: nothing, status, ...time }
}

/** Each run of bytes of a record with its digest, as far as they are known. */
export function* knownPieces({ extents, digests }: LayerRecord): Generator<{ digest: Buffer; extent: TreeRecord['extents'][number] }> {
  if (digests.length === 0) return
  let at = 0
  for (const extent of extents) {
    if (extent.block === hole) continue
    yield { digest: digests.subarray(at, at + digestBytes), extent }
    at += digestBytes
  }
}
