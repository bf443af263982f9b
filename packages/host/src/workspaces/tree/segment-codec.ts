import { blockBytes, blockHeaderBytes } from '../blocks/block-codec.ts'
import { type BlockTable, digestBytes } from '../blocks/block-table.ts'
import { ByteReader, must } from './byte-reader.ts'
import { ByteWriter } from './byte-writer.ts'
import { type KnownBlocks, RecordDecoder } from './record-decoder.ts'
import { RecordEncoder } from './record-encoder.ts'
import { type TreeRecord, treeLimits } from './tree-record.ts'

/** Number of the format of segments and blocks. */
export const formatNumber = 1
const magic = 0x544d
const packIdBytes = 32
/** Largest offset and length inside a pack. */
const packLimit = 64 * 1024 * 1024

/** Joins records to one segment: the packs and blocks they need, then the records. The same records always give the same bytes. */
export class SegmentEncoder {
  readonly #blocks: BlockTable
  readonly #records = new ByteWriter(96 * 1024)
  readonly #packs = new Map<string, number>()
  readonly #numbers = new Map<number, number>()
  #encoder: RecordEncoder
  #entries = 0

  constructor(blocks: BlockTable) {
    this.#blocks = blocks
    this.#encoder = this.#newEncoder()
  }

  /** Raw bytes so far, about. */
  get length(): number {
    return this.#records.length + this.#numbers.size * (digestBytes + 8) + this.#packs.size * packIdBytes
  }

  get entries(): number {
    return this.#entries
  }

  add(record: TreeRecord): void {
    this.#encoder.write(record)
    this.#entries++
  }

  /** The segment; the next record begins another. */
  take(): Buffer {
    const out = new ByteWriter(this.length + 64)
    const blocks = [...this.#numbers.keys()]
    for (const block of blocks) {
      const pack = this.#blocks.pack(block)
      if (!this.#packs.has(pack)) this.#packs.set(pack, this.#packs.size)
    }
    out.byte(magic & 0xff)
    out.byte(magic >> 8)
    out.byte(formatNumber)
    out.varint(this.#packs.size)
    for (const id of this.#packs.keys()) out.raw(Buffer.from(id, 'hex'))
    out.varint(blocks.length)
    for (const block of blocks) {
      out.varint(this.#packs.get(this.#blocks.pack(block)) ?? 0)
      out.varint(this.#blocks.offset(block))
      out.varint(this.#blocks.storedBytes(block))
      out.varint(this.#blocks.rawBytes(block))
      out.raw(this.#blocks.digest(block))
    }
    out.varint(this.#entries)
    out.raw(this.#records.take())
    this.#packs.clear()
    this.#numbers.clear()
    this.#entries = 0
    this.#encoder = this.#newEncoder()
    return out.take()
  }

  #newEncoder(): RecordEncoder {
    return new RecordEncoder(this.#records, (block) => {
      const known = this.#numbers.get(block)
      if (known !== undefined) return known
      this.#numbers.set(block, this.#numbers.size)
      return this.#numbers.size - 1
    })
  }
}

const recordsAtATime = 256
const extentsAtATime = 16_384

/** The records of a segment, a few at a time; their blocks are entered into `blocks`. Throws FormatError. */
export function* decodeSegment(raw: Buffer, blocks: BlockTable): Generator<TreeRecord[]> {
  const input = new ByteReader(raw)
  must(input.byte() === (magic & 0xff) && input.byte() === magic >> 8, 'it is no segment of a tree')
  const format = input.byte()
  must(format === formatNumber, `it has format ${format}, which this program does not know; a newer one may`)
  const known = readBlocks(input, blocks)
  const count = input.varint(treeLimits.entries)
  const decoder = new RecordDecoder(input, known)
  let batch: TreeRecord[] = []
  let extents = 0
  for (let index = 0; index < count; index++) {
    const record = decoder.read()
    must(!decoder.localFlag, 'a record has a flag that is not in use')
    batch.push(record)
    extents += record.extents.length
    if (batch.length < recordsAtATime && extents < extentsAtATime) continue
    yield batch
    batch = []
    extents = 0
  }
  must(input.left === 0, 'there is something behind its end')
  if (batch.length > 0) yield batch
}

function readBlocks(input: ByteReader, blocks: BlockTable): KnownBlocks {
  const packs = Array.from({ length: input.varint(Math.floor(input.left / packIdBytes)) }, () => input.raw(packIdBytes).toString('hex'))
  const count = input.varint(Math.floor(input.left / digestBytes))
  const numbers = new Uint32Array(count)
  for (let index = 0; index < count; index++) {
    const pack = packs[input.varint(packs.length)]
    must(pack !== undefined, 'a pack is not in the table')
    const offset = input.varint(packLimit)
    const storedBytes = input.varint(packLimit)
    const rawBytes = input.varint(blockBytes)
    must(storedBytes > blockHeaderBytes && rawBytes > 0, 'a block is empty')
    numbers[index] = blocks.intern({ pack, offset, storedBytes, rawBytes, digest: input.raw(digestBytes) })
  }
  return {
    count,
    number: (block) => numbers[block] ?? 0,
    rawBytes: (block) => blocks.rawBytes(numbers[block] ?? 0),
  }
}
