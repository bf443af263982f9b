import type { ByteWriter } from './byte-writer.ts'
import { type Extent, hole, splitTime, type TreeRecord, treeKinds } from './tree-record.ts'

/** Bits of a record's first byte; its lowest three are the kind. */
export const recordFlags = { sameOwner: 8, attributes: 16, linkGroup: 32, nextRun: 64, local: 128 } as const

const nothing = Buffer.alloc(0)

/**
 * Writes records one after the other, each as what differs from the one before. A run of records that starts with a fresh encoder can be read by itself.
 * `blockNumber` gives the number under which a block is known to the reader.
 */
export class RecordEncoder {
  readonly #out: ByteWriter
  readonly #blockNumber: (block: number) => number
  #path: Buffer = nothing
  #mode = 0
  #uid = 0
  #gid = 0
  #seconds = 0
  #block = 0
  #end = 0

  constructor(out: ByteWriter, blockNumber: (block: number) => number = (block) => block) {
    this.#out = out
    this.#blockNumber = blockNumber
  }

  write(record: TreeRecord, localFlag = false): void {
    const out = this.#out
    const shared = sharedBytes(this.#path, record.path)
    out.varint(shared)
    out.sized(record.path.subarray(shared))
    this.#path = record.path

    const sameOwner = record.mode === this.#mode && record.uid === this.#uid && record.gid === this.#gid
    const nextRun = this.#isNextRun(record)
    let flags = treeKinds.indexOf(record.kind)
    if (sameOwner) flags |= recordFlags.sameOwner
    if (record.attributes.length > 0) flags |= recordFlags.attributes
    if (record.linkGroup !== 0n) flags |= recordFlags.linkGroup
    if (nextRun) flags |= recordFlags.nextRun
    if (localFlag) flags |= recordFlags.local
    out.byte(flags)

    if (!sameOwner) {
      out.varint(record.mode)
      out.varint(record.uid)
      out.varint(record.gid)
      this.#mode = record.mode
      this.#uid = record.uid
      this.#gid = record.gid
    }
    const { seconds, nanos } = splitTime(record.mtimeNs)
    out.signed(seconds - this.#seconds)
    out.u32(nanos)
    this.#seconds = seconds

    if (record.attributes.length > 0) {
      out.varint(record.attributes.length)
      for (const { name, value } of record.attributes) {
        out.sized(Buffer.from(name))
        out.sized(value)
      }
    }
    if (record.linkGroup !== 0n) out.u64(record.linkGroup)
    if (record.kind === 'symlink') out.sized(record.target ?? nothing)
    if (record.kind === 'file') {
      out.varint(record.sizeBytes)
      if (nextRun) this.#end += record.sizeBytes
      else if (record.sizeBytes > 0) this.#extents(record)
    }
  }

  /** A file of one run, right behind the one before it: so lie small files in their blocks. */
  #isNextRun({ kind, extents }: TreeRecord): boolean {
    const only = extents[0]
    return kind === 'file' && extents.length === 1 && only?.block !== hole && only?.position === this.#end && this.#blockNumber(only.block) === this.#block
  }

  #extents({ extents }: TreeRecord): void {
    const out = this.#out
    // A single run is as long as the file is: its length is left out.
    out.varint(extents.length === 1 ? 0 : extents.length)
    for (const extent of extents) this.#extent(extent, extents.length > 1)
  }

  #extent(extent: Extent, withLength: boolean): void {
    const out = this.#out
    if (extent.block === hole) out.varint(0)
    else {
      const block = this.#blockNumber(extent.block)
      const delta = block - this.#block
      out.varint(1 + (delta < 0 ? -delta * 2 - 1 : delta * 2))
      out.varint(extent.position)
      this.#block = block
      this.#end = extent.position + extent.lengthBytes
    }
    if (withLength) out.varint(extent.lengthBytes)
  }
}

function sharedBytes(a: Buffer, b: Buffer): number {
  const most = Math.min(a.length, b.length)
  let at = 0
  while (at < most && a[at] === b[at]) at++
  return at
}
