import { setImmediate as turn } from 'node:timers/promises'
import type { LayerSession } from '../../layers/layer-session.ts'
import { sha256 } from '../blocks/block-codec.ts'
import { type BlockTable, digestBytes } from '../blocks/block-table.ts'
import type { PieceIndex } from '../blocks/piece-index.ts'
import type { Manifest, PackStore } from '../repository/repository.ts'
import { readTree } from '../tree/read-tree.ts'
import type { TreeRecord } from '../tree/tree-record.ts'
import { knownPieces, type LayerRecord, type LayerTree, LayerTreeWriter, layerRecords } from './layer-tree.ts'

/** The version that lies under a layer, as one tree. */
export interface LowerTree {
  /** Two trees with the same key are the same. */
  readonly key: string
  readonly tree: LayerTree
}

/** What is known of a layer since it was saved or restored. */
export interface SaveState {
  /** The version it is. */
  readonly manifest: Manifest
  readonly blocks: BlockTable
  readonly layer: LayerTree
  /** Files whose stamps prove nothing, because they changed just before they were read. */
  readonly recheck: LayerTree
  readonly lower: LowerTree | undefined
  readonly skippedCount: number
  /** How many packs the version had when they were last looked through for renewal. */
  readonly renewedPacks: number
  /** This session remembers the layer just as this state has it, so its `changes` can be used. */
  walkedBy: LayerSession | undefined
  /** Made when first needed. */
  index: PieceIndex | undefined
}

const recordsAtATime = 2_000

/** Goes through records without keeping the program from everything else. */
export async function* inTurns<T>(records: Iterable<T>, abort?: AbortSignal): AsyncGenerator<T[]> {
  let batch: T[] = []
  for (const record of records) {
    batch.push(record)
    if (batch.length < recordsAtATime) continue
    yield batch
    batch = []
    await turn()
    abort?.throwIfAborted()
  }
  yield batch
}

/** A record without anything that only holds on this machine. */
export function bareLayerRecord(record: TreeRecord): LayerRecord {
  return { ...record, status: 'kept', inode: 0n, ctimeNs: 0n, digests: Buffer.alloc(0) }
}

export function treeKey(manifest: Manifest): string {
  return sha256(Buffer.from(manifest.segments.map(({ sha256: digest, pack }) => `${digest} ${pack}`).join('\n'))).toString('hex')
}

/** Reads the version under a layer into memory; its blocks are entered into `blocks`. */
export async function loadLower(manifest: Manifest, packs: PackStore, blocks: BlockTable, abort?: AbortSignal): Promise<LowerTree> {
  const tree = new LayerTreeWriter()
  for await (const records of readTree(manifest, packs, blocks, abort)) for (const record of records) tree.add(bareLayerRecord(record))
  return { key: treeKey(manifest), tree: tree.finish() }
}

/** Enters everything that is stored already and can be told by its hash. */
export async function indexPieces(index: PieceIndex, layer: LayerTree, blocks: BlockTable, abort?: AbortSignal): Promise<void> {
  for await (const records of inTurns(layerRecords(layer), abort)) {
    for (const record of records) for (const { digest, extent } of knownPieces(record)) index.add(digest, extent)
  }
  for (let block = 0; block < blocks.count; block++) {
    index.add(blocks.digest(block).subarray(0, digestBytes), { block, position: 0, lengthBytes: blocks.rawBytes(block) })
  }
}
