import { setImmediate as turn } from 'node:timers/promises'
import { MagsError } from '@mags/protocol'
import type { LayerSession } from '../../layers/layer-session.ts'
import { BlockTable } from '../blocks/block-table.ts'
import { BlockWriter } from '../blocks/block-writer.ts'
import { PackWriter } from '../blocks/pack-writer.ts'
import { PieceIndex } from '../blocks/piece-index.ts'
import type { Manifest, PackStore } from '../repository/repository.ts'
import { FormatError } from '../tree/byte-reader.ts'
import { readTree } from '../tree/read-tree.ts'
import { SegmentWriter } from '../tree/segment-writer.ts'
import { TreeChecker } from '../tree/tree-checker.ts'
import type { TreeRecord } from '../tree/tree-record.ts'
import { applyDifferences } from './apply-differences.ts'
import { contradiction } from './layer-differences.ts'
import { emptyLayerTree, type LayerRecord, type LayerTree, LayerTreeWriter, layerRecords } from './layer-tree.ts'
import { mergeOverlay } from './overlay-merge.ts'
import { type FreezeGuard, readRounds } from './read-rounds.ts'
import { type Moves, renewPacks, smallPacks } from './renewal.ts'
import { renumbering } from './renumbering.ts'
import { indexPieces, type LowerTree, loadLower, type SaveState, treeKey } from './save-state.ts'

const maxSegmentPacks = 24

export interface SaveInput {
  readonly session: LayerSession
  readonly packs: PackStore
  readonly image: Manifest['image']
  /** Of the last save or restore of this same layer. */
  readonly previous?: SaveState | undefined
  /** The version that lies under this layer. */
  readonly lower?: Manifest | undefined
  /** The newest version of this workspace, for when `previous` was lost: its blocks are not stored anew. */
  readonly known?: Manifest | undefined
  /** Of a sandbox that is running; without one nothing may change the layer meanwhile. */
  readonly guard?: FreezeGuard | undefined
  /** Now, in nanoseconds since 1970, by the clock that gives the layer's times (of a VM: the guest's). */
  readonly clock: () => bigint
  readonly abort?: AbortSignal | undefined
  /** Files and bytes read so far. */
  readonly onProgress?: ((progress: { readonly files: number; readonly bytes: number }) => void) | undefined
}

export interface SaveResult {
  readonly manifest: Manifest
  /** For the next save; the one that was given must not be used again. */
  readonly state: SaveState
  /** False when it is the version of before: nothing was stored. */
  readonly changed: boolean
  /** Device nodes, which are not kept. */
  readonly skippedCount: number
  readonly uploadedBytes: number
}

/**
 * Stores a layer as a version: what has changed since `previous` goes to `packs`, the rest is named again. Everything the manifest names is durable once settled.
 * Rejects with MagsError 'workspace_not_savable' (naming the path or limit), 'workspace_damaged' (of `lower`), and with what session, guard and store reject with. After a failure `previous` may be used again.
 */
export async function saveTree(input: SaveInput): Promise<SaveResult> {
  const { session, previous, abort } = input
  const remembered = previous?.walkedBy === session
  // What the session remembers from here on is not what `previous` has, until this save is done.
  if (previous !== undefined) previous.walkedBy = undefined

  const blocks = previous?.blocks ?? new BlockTable()
  const lower = await lowerOf(input, blocks)
  if (previous === undefined && input.known !== undefined) for await (const _ of readTree(input.known, input.packs, blocks, abort));
  const layer = previous?.layer ?? emptyLayerTree
  const index = previous?.index ?? new PieceIndex()
  let isIndexed = previous?.index !== undefined
  // What is added to it now has no meaning after a failure.
  if (previous !== undefined) previous.index = undefined
  const packs = new PackWriter(input.packs)
  const writer = new BlockWriter(packs, index)
  const progress = { files: 0, bytes: 0 }
  try {
    const read = await readRounds({
      session,
      layer,
      recheck: previous?.recheck ?? emptyLayerTree,
      remembered,
      blocks: writer,
      packs,
      guard: input.guard,
      clock: input.clock,
      abort,
      async beforeRead() {
        if (!isIndexed) await indexPieces(index, layer, blocks, abort)
        isIndexed = true
      },
      onFile(sizeBytes) {
        progress.files++
        progress.bytes += sizeBytes
        input.onProgress?.({ ...progress })
      },
    })
    if (previous !== undefined && read.differences.length === 0 && previous.lower?.key === lower?.key && isSameImage(previous.manifest.image, input.image)) {
      // The index has only what `blocks` has: nothing was added to it.
      const state = { ...previous, recheck: read.recheck, walkedBy: session, index: isIndexed ? index : undefined }
      return { manifest: previous.manifest, state, changed: false, skippedCount: previous.skippedCount, uploadedBytes: packs.uploadedBytes }
    }
    const records = (): Iterable<LayerRecord> => {
      let result: Iterable<LayerRecord> = layerRecords(layer)
      for (const differences of read.differences) result = applyDifferences(result, layerRecords(differences))
      return result
    }
    const lowerRecords = (): Iterable<LayerRecord> => layerRecords(lower?.tree ?? emptyLayerTree)
    const renewal = await renew(input, () => mergeOverlay(records(), lowerRecords()), blocks, writer)
    await writer.seal()
    return await storeTree(input, { records: records(), lowerRecords: lowerRecords(), recheck: read.recheck, lower, blocks, writer, packs, ...renewal })
  } finally {
    // After a failure, too: nothing of this save goes on behind the caller's back.
    await packs.stop()
  }
}

interface Parts {
  readonly records: Iterable<LayerRecord>
  readonly lowerRecords: Iterable<LayerRecord>
  readonly moves: Moves
  readonly renewedPacks: number | undefined
  readonly recheck: LayerTree
  readonly lower: LowerTree | undefined
  readonly blocks: BlockTable
  readonly writer: BlockWriter
  readonly packs: PackWriter
}

/** Writes the segments of the tree, and the state beside them with only those blocks that are still in use. */
async function storeTree(input: SaveInput, { records, lowerRecords, recheck, lower, blocks, writer, packs, moves, renewedPacks }: Parts): Promise<SaveResult> {
  const table = new BlockTable()
  const renumber = renumbering(writer, blocks, table, moves)
  const before = input.previous?.manifest ?? input.known
  const segments = new SegmentWriter(packs, knownSegments(before), table)
  const layerWriter = new LayerTreeWriter()
  const lowerWriter = new LayerTreeWriter()
  let skippedCount = 0
  const upper = through(records, (record) => {
    const renumbered = renumber(record)
    layerWriter.add(renumbered)
    if (record.status === 'device') skippedCount++
    return renumbered
  })
  const under = through(lowerRecords, (record) => {
    const renumbered = renumber(record)
    lowerWriter.add(renumbered)
    return renumbered
  })
  const checker = new TreeChecker()
  for (const record of mergeOverlay(upper, under)) {
    see(checker, record)
    segments.add(record)
    if (checker.count % 2_000 !== 0) continue
    await turn()
    await segments.room()
    input.abort?.throwIfAborted()
  }
  const recheckWriter = new LayerTreeWriter()
  for (const record of layerRecords(recheck)) recheckWriter.add(renumber(record))
  const stored = await segments.finish(input.image)
  const changed = before === undefined || !isSameImage(before.image, stored.image) || !isSameTree(before, stored)
  const state: SaveState = {
    manifest: changed ? stored : before,
    blocks: table,
    layer: layerWriter.finish(),
    recheck: recheckWriter.finish(),
    lower: lower === undefined ? undefined : { key: lower.key, tree: lowerWriter.finish() },
    skippedCount,
    renewedPacks: renewedPacks ?? stored.packs.length,
    walkedBy: input.session,
    index: undefined,
  }
  return { manifest: state.manifest, state, changed, skippedCount, uploadedBytes: packs.uploadedBytes }
}

async function lowerOf({ lower, previous, packs, abort }: SaveInput, blocks: BlockTable): Promise<LowerTree | undefined> {
  if (lower === undefined) return undefined
  if (previous?.lower?.key === treeKey(lower)) return previous.lower
  return loadLower(lower, packs, blocks, abort)
}

/** Looks for packs to renew whenever there are some more of them. A failure to read one is no reason not to save. */
async function renew(
  { previous, known, packs, abort }: SaveInput,
  tree: () => Iterable<TreeRecord>,
  blocks: BlockTable,
  writer: BlockWriter,
): Promise<Pick<Parts, 'moves' | 'renewedPacks'>> {
  const renewedPacks = previous?.renewedPacks ?? 0
  const manifest = previous?.manifest ?? known
  if (manifest === undefined || manifest.packs.length < renewedPacks + smallPacks)
    return { moves: new Map(), renewedPacks: manifest === undefined ? undefined : renewedPacks }
  try {
    return { moves: await renewPacks(tree, blocks, packs, writer, abort), renewedPacks: undefined }
  } catch (error) {
    abort?.throwIfAborted()
    if (!(error instanceof MagsError)) throw error
    return { moves: new Map(), renewedPacks: manifest.packs.length }
  }
}

/** Segments that lie scattered over very many packs are stored anew. */
function knownSegments(manifest: Manifest | undefined): Manifest['segments'] {
  const segments = manifest?.segments ?? []
  const packCount = new Set(segments.map(({ pack }) => pack)).size
  return packCount > maxSegmentPacks && packCount * 4 > segments.length ? [] : segments
}

function* through<T>(records: Iterable<T>, change: (record: T) => T): Generator<T> {
  for (const record of records) yield change(record)
}

function see(checker: TreeChecker, record: TreeRecord): void {
  try {
    checker.see(record)
  } catch (error) {
    if (error instanceof FormatError) throw contradiction(record.path)
    throw error
  }
}

function isSameImage(a: Manifest['image'], b: Manifest['image']): boolean {
  return a.name === b.name && a.digest === b.digest
}

function isSameTree(a: Manifest, b: Manifest): boolean {
  return a.segments.length === b.segments.length && a.segments.every(({ sha256 }, index) => sha256 === b.segments[index]?.sha256)
}
