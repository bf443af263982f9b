import type { LayerSession, LayerWrite } from '../../layers/layer-session.ts'
import { sha256 } from '../blocks/block-codec.ts'
import { BlockTable, digestBytes } from '../blocks/block-table.ts'
import type { Manifest, PackStore } from '../repository/repository.ts'
import { type LayerRecord, type LayerTree, LayerTreeWriter, layerRecords } from '../save/layer-tree.ts'
import { bareLayerRecord, type SaveState } from '../save/save-state.ts'
import { readTree } from '../tree/read-tree.ts'
import { type Extent, hole } from '../tree/tree-record.ts'
import { BlockSource, type SourceMemory } from './block-source.ts'
import { BlockUses } from './block-uses.ts'
import { stampTree } from './stamp-tree.ts'

export interface RestoreInput {
  /** Of an empty layer. */
  readonly session: LayerSession
  readonly manifest: Manifest
  readonly packs: PackStore
  /** Now, in nanoseconds since 1970, by the clock that gives the layer's times. */
  readonly clock: () => bigint
  readonly abort?: AbortSignal | undefined
  /** Paths and bytes written so far, of `manifest.entryCount` and `manifest.sizeBytes`. */
  readonly onProgress?: ((progress: { readonly entries: number; readonly bytes: number }) => void) | undefined
  readonly memory?: SourceMemory | undefined
}

const defaultMemory: SourceMemory = { storedBytes: 64 * 1024 * 1024, rawBytes: 32 * 1024 * 1024 }

/**
 * Fills an empty layer with a version. Settles with what `saveTree` needs to know of the layer.
 * Rejects with MagsError('workspace_damaged') naming pack and offset, and with what session and store reject with; the layer is then of no use.
 */
export async function restoreTree(input: RestoreInput): Promise<SaveState> {
  const { session, manifest, packs, clock, abort } = input
  const ended = new AbortController()
  const signal = abort === undefined ? ended.signal : AbortSignal.any([abort, ended.signal])
  try {
    const blocks = new BlockTable()
    const { tree, uses } = await plan(manifest, packs, blocks, signal)
    const source = new BlockSource(blocks, uses, packs, input.memory ?? defaultMemory, signal)
    const written = new LayerTreeWriter()
    await session.write(writes({ input, tree, blocks, source, written, signal }))
    const startedNs = clock()
    const { layer, recheck, isExact } = await stampTree(session.walk(), written.finish(), startedNs)
    return { manifest, blocks, layer, recheck, lower: undefined, skippedCount: 0, renewedPacks: 0, walkedBy: isExact ? session : undefined, index: undefined }
  } finally {
    ended.abort()
  }
}

/** The whole tree, and in which order its blocks are needed. */
async function plan(manifest: Manifest, packs: PackStore, blocks: BlockTable, abort: AbortSignal): Promise<{ tree: LayerTree; uses: BlockUses }> {
  const tree = new LayerTreeWriter()
  const uses = new BlockUses()
  const linked = new Set<bigint>()
  for await (const records of readTree(manifest, packs, blocks, abort)) {
    for (const record of records) {
      tree.add(bareLayerRecord(record))
      if (!linked.has(record.linkGroup)) uses.add(record)
      if (record.linkGroup !== 0n) linked.add(record.linkGroup)
    }
  }
  return { tree: tree.finish(), uses }
}

interface Filling {
  readonly input: RestoreInput
  readonly tree: LayerTree
  readonly blocks: BlockTable
  readonly source: BlockSource
  readonly written: LayerTreeWriter
  readonly signal: AbortSignal
}

async function* writes({ input, tree, blocks, source, written, signal }: Filling): AsyncGenerator<LayerWrite> {
  const contents = new Contents(blocks, source)
  const links = new Map<bigint, { readonly path: Buffer; readonly digests: Buffer }>()
  const progress = { entries: 0, bytes: 0 }
  for (const record of layerRecords(tree)) {
    signal.throwIfAborted()
    const link = record.linkGroup === 0n ? undefined : links.get(record.linkGroup)
    yield { kind: 'entry', entry: entryOf(record, link?.path) }
    let digests = link?.digests
    if (digests === undefined) {
      const parts: Buffer[] = []
      let offset = 0
      for (const extent of record.extents) {
        if (extent.block !== hole) {
          const bytes = await contents.of(extent)
          parts.push(contents.digest(extent, bytes))
          yield { kind: 'data', offset, bytes }
        }
        offset += extent.lengthBytes
      }
      digests = Buffer.concat(parts)
      if (record.linkGroup !== 0n) links.set(record.linkGroup, { path: record.path, digests })
    }
    written.add({ ...record, digests })
    progress.entries++
    progress.bytes += record.sizeBytes
    input.onProgress?.({ ...progress })
  }
}

/** The bytes of extents in the order of the tree. */
class Contents {
  readonly #blocks: BlockTable
  readonly #source: BlockSource
  #block = hole
  #raw: Buffer = Buffer.alloc(0)

  constructor(blocks: BlockTable, source: BlockSource) {
    this.#blocks = blocks
    this.#source = source
  }

  async of({ block, position, lengthBytes }: Extent): Promise<Buffer> {
    if (block !== this.#block) this.#raw = await this.#source.next()
    this.#block = block
    return this.#raw.subarray(position, position + lengthBytes)
  }

  digest({ block, lengthBytes }: Extent, bytes: Buffer): Buffer {
    return lengthBytes === this.#blocks.rawBytes(block) ? this.#blocks.digest(block) : sha256(bytes).subarray(0, digestBytes)
  }
}

function entryOf(record: LayerRecord, linkTo: Buffer | undefined): Extract<LayerWrite, { kind: 'entry' }>['entry'] {
  const { path, kind, mode, uid, gid, sizeBytes, mtimeNs, attributes, target } = record
  return {
    path,
    kind,
    mode,
    uid,
    gid,
    sizeBytes,
    mtimeNs,
    attributes,
    ...(target === undefined ? {} : { target }),
    ...(linkTo === undefined ? {} : { linkTo }),
  }
}
