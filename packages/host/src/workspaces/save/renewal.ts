import { BlockReader } from '../blocks/block-reader.ts'
import type { BlockTable } from '../blocks/block-table.ts'
import { type BlockWriter, newBlocksFrom } from '../blocks/block-writer.ts'
import type { PackId, PackStore } from '../repository/repository.ts'
import { type Extent, hole, type TreeRecord } from '../tree/tree-record.ts'
import { inTurns } from './save-state.ts'

const smallPackBytes = 4 * 1024 * 1024
/** So many small packs are joined at once: every byte is stored about twice in its life. */
export const smallPacks = 16
const sparseShare = 0.4
const most = { packs: 32, bytes: 64 * 1024 * 1024, runs: 100_000 } as const

/** Where runs of bytes lie from now on. */
export type Moves = ReadonlyMap<string, Extent>

interface PackUse {
  /** Bytes that files have in it. */
  usedBytes: number
  /** Raw bytes of the blocks in which those are. */
  readonly blocks: Map<number, number>
}

/**
 * Every save leaves the blocks of before where they are, so that after many saves a version needs many packs with little in each, spread all over the tree: slow to restore, and full of what nobody needs.
 * This stores the contents of such packs anew, in tree order. Nothing is moved when there are few of them.
 */
export async function renewPacks(
  tree: () => Iterable<TreeRecord>,
  table: BlockTable,
  packs: PackStore,
  writer: BlockWriter,
  abort?: AbortSignal,
): Promise<Moves> {
  const chosen = choose(await usesOf(tree(), table, abort), table)
  const moves = new Map<string, Extent>()
  if (chosen.size === 0) return moves
  const reader = new BlockReader(table, packs, abort, { packs: 12, blocks: most.packs + 8 })
  for await (const records of inTurns(tree(), abort)) {
    for (const { extents } of records) {
      for (const extent of extents) {
        if (!isIn(chosen, extent, table) || moves.has(runKey(extent)) || moves.size >= most.runs) continue
        const { block, position, lengthBytes } = extent
        const raw = await reader.read(block)
        moves.set(runKey(extent), writer.addAnew(raw.subarray(position, position + lengthBytes)))
        await writer.room()
      }
    }
  }
  return moves
}

/** Names a run of bytes. */
export function runKey({ block, position, lengthBytes }: Extent): string {
  return `${block} ${position} ${lengthBytes}`
}

function isIn(chosen: ReadonlySet<PackId>, { block }: Extent, table: BlockTable): boolean {
  return block !== hole && block < newBlocksFrom && chosen.has(table.pack(block))
}

async function usesOf(tree: Iterable<TreeRecord>, table: BlockTable, abort?: AbortSignal): Promise<Map<PackId, PackUse>> {
  const uses = new Map<PackId, PackUse>()
  for await (const records of inTurns(tree, abort)) {
    for (const { extents } of records) {
      for (const { block, lengthBytes } of extents) {
        if (block === hole || block >= newBlocksFrom) continue
        const pack = table.pack(block)
        const use = uses.get(pack) ?? { usedBytes: 0, blocks: new Map<number, number>() }
        uses.set(pack, use)
        use.usedBytes += lengthBytes
        use.blocks.set(block, table.rawBytes(block))
      }
    }
  }
  return uses
}

function choose(uses: ReadonlyMap<PackId, PackUse>, table: BlockTable): Set<PackId> {
  const all = [...uses].map(([pack, { usedBytes, blocks }]) => {
    const rawBytes = [...blocks.values()].reduce((sum, bytes) => sum + bytes, 0)
    const storedBytes = [...blocks.keys()].reduce((sum, block) => sum + table.storedBytes(block), 0)
    return { pack, usedBytes, isSmall: storedBytes < smallPackBytes, isSparse: usedBytes < rawBytes * sparseShare }
  })
  const hasManySmall = all.filter(({ isSmall }) => isSmall).length >= smallPacks
  const chosen = new Set<PackId>()
  let bytes = 0
  for (const { pack, usedBytes, isSmall, isSparse } of all.sort((a, b) => a.usedBytes - b.usedBytes)) {
    if (!((isSmall && hasManySmall) || isSparse) || chosen.size >= most.packs || bytes + usedBytes > most.bytes) continue
    chosen.add(pack)
    bytes += usedBytes
  }
  return chosen
}
