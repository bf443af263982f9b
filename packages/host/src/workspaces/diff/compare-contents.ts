import type { BlockReader } from '../blocks/block-reader.ts'
import type { BlockTable } from '../blocks/block-table.ts'
import { type Extent, hole, type TreeRecord } from '../tree/tree-record.ts'

/** A part of a file that lies in one run on both sides. */
function* commonRuns(a: readonly Extent[], b: readonly Extent[]): Generator<{ readonly left: Extent; readonly right: Extent }> {
  let [atA, usedA, atB, usedB] = [0, 0, 0, 0]
  for (;;) {
    const left = a[atA]
    const right = b[atB]
    if (left === undefined || right === undefined) return
    const lengthBytes = Math.min(left.lengthBytes - usedA, right.lengthBytes - usedB)
    yield {
      left: { block: left.block, position: left.position + usedA, lengthBytes },
      right: { block: right.block, position: right.position + usedB, lengthBytes },
    }
    usedA += lengthBytes
    usedB += lengthBytes
    if (usedA === left.lengthBytes) {
      atA++
      usedA = 0
    }
    if (usedB === right.lengthBytes) {
      atB++
      usedB = 0
    }
  }
}

/** Whether two files have the same bytes; reads only what cannot be told from places and hashes. */
export async function haveSameContents(a: TreeRecord, b: TreeRecord, table: BlockTable, blocks: BlockReader): Promise<boolean> {
  if (a.sizeBytes !== b.sizeBytes) return false
  const doubtful: { readonly left: Extent; readonly right: Extent }[] = []
  for (const run of commonRuns(a.extents, b.extents)) {
    const { left, right } = run
    if (left.block === right.block && (left.block === hole || left.position === right.position)) continue
    if (isWhole(left, table) && isWhole(right, table)) {
      if (table.digest(left.block).equals(table.digest(right.block))) continue
      return false
    }
    doubtful.push(run)
  }
  for (const { left, right } of doubtful) {
    if (left.block === hole || right.block === hole) {
      if (!isZero(await bytesOf(left.block === hole ? right : left, blocks))) return false
    } else if (!(await bytesOf(left, blocks)).equals(await bytesOf(right, blocks))) return false
  }
  return true
}

/** The bytes of a small file. */
export async function contentsOf(record: TreeRecord, blocks: BlockReader): Promise<Buffer> {
  const parts: Buffer[] = []
  for (const extent of record.extents) parts.push(extent.block === hole ? Buffer.alloc(extent.lengthBytes) : await bytesOf(extent, blocks))
  return Buffer.concat(parts)
}

async function bytesOf({ block, position, lengthBytes }: Extent, blocks: BlockReader): Promise<Buffer> {
  return (await blocks.read(block)).subarray(position, position + lengthBytes)
}

function isWhole({ block, position, lengthBytes }: Extent, table: BlockTable): boolean {
  return block !== hole && position === 0 && lengthBytes === table.rawBytes(block)
}

function isZero(bytes: Buffer): boolean {
  return bytes.every((byte) => byte === 0)
}
