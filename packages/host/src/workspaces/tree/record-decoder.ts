import type { ExtendedAttribute } from '../../layers/layer-session.ts'
import { type ByteReader, must } from './byte-reader.ts'
import { recordFlags } from './record-encoder.ts'
import { isTreePath } from './tree-order.ts'
import { type Extent, hole, joinTime, maxSeconds, type TreeKind, type TreeRecord, treeKinds, treeLimits } from './tree-record.ts'

const none: readonly never[] = []
const nothing = Buffer.alloc(0)

/** What a reader knows of the blocks that records name. */
export interface KnownBlocks {
  /** How many. */
  readonly count: number
  rawBytes(block: number): number
  /** Number in the reader's own table. */
  number(block: number): number
}

/** Reads what a `RecordEncoder` wrote. Checks everything that can be checked of one record by itself; throws FormatError. */
export class RecordDecoder {
  readonly #in: ByteReader
  readonly #blocks: KnownBlocks
  /** Of the record read last. */
  localFlag = false
  #path: Buffer = nothing
  #mode = 0
  #uid = 0
  #gid = 0
  #seconds = 0
  #block = 0
  #end = 0

  constructor(input: ByteReader, blocks: KnownBlocks) {
    this.#in = input
    this.#blocks = blocks
  }

  read(): TreeRecord {
    const input = this.#in
    const shared = input.varint(this.#path.length)
    const suffix = input.sized(treeLimits.pathBytes)
    const path = Buffer.allocUnsafe(shared + suffix.length)
    path.set(this.#path.subarray(0, shared))
    path.set(suffix, shared)
    must(isTreePath(path), 'a path breaks the rules')
    this.#path = path

    const flags = input.byte()
    const kind = treeKinds[flags & 7]
    must(kind !== undefined, 'a kind is unknown')
    this.localFlag = (flags & recordFlags.local) !== 0
    if ((flags & recordFlags.sameOwner) === 0) {
      this.#mode = input.varint(0o7777)
      this.#uid = input.varint(treeLimits.id)
      this.#gid = input.varint(treeLimits.id)
    }
    this.#seconds += input.signed(4 * maxSeconds)
    const nanos = input.u32()
    must(Math.abs(this.#seconds) <= maxSeconds && nanos < 1_000_000_000, 'a time is out of range')
    const attributes = (flags & recordFlags.attributes) === 0 ? none : this.#attributes()
    const linkGroup = (flags & recordFlags.linkGroup) === 0 ? 0n : input.u64()
    must(linkGroup === 0n || kind !== 'directory', 'a folder is a hard link')
    const target = kind === 'symlink' ? this.#target() : undefined
    const sizeBytes = kind === 'file' ? input.varint(treeLimits.sizeBytes) : 0
    const nextRun = (flags & recordFlags.nextRun) !== 0
    must(!nextRun || sizeBytes > 0, 'a run of bytes belongs to no file')
    const extents = sizeBytes === 0 ? none : nextRun ? [this.#run(this.#block, this.#end, sizeBytes)] : this.#extents(sizeBytes)
    const mtimeNs = joinTime(this.#seconds, nanos)
    return { path, kind: kind as TreeKind, mode: this.#mode, uid: this.#uid, gid: this.#gid, mtimeNs, sizeBytes, target, attributes, linkGroup, extents }
  }

  #attributes(): ExtendedAttribute[] {
    const count = this.#in.varint(treeLimits.attributes)
    return Array.from({ length: count }, () => {
      const name = this.#in.sized(treeLimits.nameBytes).toString()
      return { name, value: Buffer.from(this.#in.sized(treeLimits.attributeBytes)) }
    })
  }

  #target(): Buffer {
    const target = this.#in.sized(treeLimits.targetBytes)
    must(target.length > 0 && !target.includes(0), 'a symbolic link points nowhere')
    return Buffer.from(target)
  }

  #extents(sizeBytes: number): Extent[] {
    const count = this.#in.varint(treeLimits.extentsPerFile)
    if (count === 0) return [this.#extent(sizeBytes)]
    const extents: Extent[] = []
    let covered = 0
    for (let index = 0; index < count; index++) {
      const extent = this.#extent(undefined)
      covered += extent.lengthBytes
      extents.push(extent)
    }
    must(covered === sizeBytes, 'a file has more or less bytes than its size')
    return extents
  }

  #extent(knownLength: number | undefined): Extent {
    const input = this.#in
    const code = input.varint(2 ** 33)
    if (code === 0) {
      const lengthBytes = knownLength ?? input.varint(treeLimits.sizeBytes)
      must(lengthBytes > 0, 'a hole is empty')
      return { block: hole, position: 0, lengthBytes }
    }
    const block = this.#block + ((code - 1) % 2 === 1 ? -code / 2 : (code - 1) / 2)
    const position = input.varint(2 ** 32)
    return this.#run(block, position, knownLength ?? input.varint(treeLimits.sizeBytes))
  }

  #run(block: number, position: number, lengthBytes: number): Extent {
    must(block >= 0 && block < this.#blocks.count, 'a block is not in the table')
    must(lengthBytes > 0 && position + lengthBytes <= this.#blocks.rawBytes(block), 'a run of bytes is not inside its block')
    this.#block = block
    this.#end = position + lengthBytes
    return { block: this.#blocks.number(block), position, lengthBytes }
  }
}
