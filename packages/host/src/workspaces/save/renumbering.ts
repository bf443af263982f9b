import type { BlockTable } from '../blocks/block-table.ts'
import { type BlockWriter, newBlocksFrom } from '../blocks/block-writer.ts'
import { type Extent, hole, type TreeRecord } from '../tree/tree-record.ts'
import { type Moves, runKey } from './renewal.ts'

/** Gives the blocks of records their numbers in `table`, which so has only what is in use; runs that were stored anew are where they are now. */
export function renumbering(writer: BlockWriter, blocks: BlockTable, table: BlockTable, moves: Moves): <T extends TreeRecord>(record: T) => T {
  const old = new Int32Array(blocks.count).fill(-1)
  const made = new Map<number, number>()
  const numberOf = (block: number): number => {
    if (block === hole) return hole
    if (block >= newBlocksFrom) {
      const known = made.get(block) ?? writer.settle(block, blocks, table)
      made.set(block, known)
      return known
    }
    const known = old[block]
    if (known !== undefined && known >= 0) return known
    const number = table.intern(blocks.place(block))
    old[block] = number
    return number
  }
  const moved = (extent: Extent): Extent => {
    const to = moves.size === 0 ? extent : (moves.get(runKey(extent)) ?? extent)
    return { ...to, block: numberOf(to.block) }
  }
  return (record) => (record.extents.length === 0 ? record : { ...record, extents: record.extents.map(moved) })
}
