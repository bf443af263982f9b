import { MagsError } from '@mags/protocol'
import type { LayerContent, LayerSession, Stamp } from '../../layers/layer-session.ts'
import type { BlockWriter } from '../blocks/block-writer.ts'
import { treeLimits } from '../tree/tree-record.ts'
import { type FileContents, FilePieces } from './file-pieces.ts'
import { isRacy } from './is-racy.ts'
import { type LayerRecord, type LayerTree, LayerTreeWriter, layerRecords } from './layer-tree.ts'

const filesAtATime = 1_024

export interface ReadOptions {
  /** Nothing changes meanwhile: a file that does so all the same is an error. */
  readonly still: boolean
  /** Store at the pace of the packs; otherwise everything read is held in memory until there is time. */
  readonly paced: boolean
  /** When the walk began, by the clock that gives the layer's times. */
  readonly startedNs: bigint
  readonly abort?: AbortSignal | undefined
  /** Called for each file that was read. */
  onFile(sizeBytes: number): void
}

/** Differences with their contents; `recheck` are those to be read again next time. */
export interface ReadDifferences {
  readonly tree: LayerTree
  readonly recheck: LayerTree
}

/** Reads the contents of all records that are `unread` or `reread` and stores them. Rejects with MagsError('workspace_not_savable') naming the path of a file that cannot be saved. */
export async function readContents(session: LayerSession, differences: LayerTree, blocks: BlockWriter, options: ReadOptions): Promise<ReadDifferences> {
  const done = new LayerTreeWriter()
  const recheck = new LayerTreeWriter()
  const pieces = new FilePieces(blocks)
  const links = new Map<bigint, LayerRecord>()

  const finish = (record: LayerRecord, contents: FileContents | undefined): void => {
    if (contents === undefined) {
      if (options.still) throw changedMeanwhile(record.path)
      const again: LayerRecord = { ...record, status: 'unread' }
      done.add(again)
      recheck.add(again)
      return
    }
    options.onFile(record.sizeBytes)
    const same = record.status === 'reread' && isSameContents(record, contents)
    const kept: LayerRecord = same ? { ...record, status: 'kept' } : { ...record, extents: contents.extents, digests: contents.digests, status: 'kept' }
    if (!same) done.add(kept)
    if (isRacy(record, options.startedNs)) recheck.add({ ...kept, status: 'reread' })
    if (record.linkGroup !== 0n) links.set(record.inode, kept)
  }

  let waiting: LayerRecord[] = []
  const readWaiting = async (): Promise<void> => {
    const batch = waiting
    waiting = []
    const asked = firstOfEachInode(batch, links)
    if (asked.length === 0) {
      for (const record of batch)
        if (isToRead(record)) finish(record, linked(links, record))
        else done.add(record)
      return
    }
    const contents = new ContentStream(session.read(asked.map(({ path }) => path)), pieces, blocks, options)
    try {
      for (const record of batch) {
        if (!isToRead(record)) done.add(record)
        else finish(record, asked[contents.index] === record ? await contents.next(record) : linked(links, record))
      }
      await contents.end()
    } finally {
      await contents.close()
    }
  }
  for (const record of layerRecords(differences)) {
    options.abort?.throwIfAborted()
    waiting.push(record)
    if (waiting.length >= filesAtATime) await readWaiting()
  }
  await readWaiting()
  return { tree: done.finish(), recheck: recheck.finish() }
}

function isToRead({ status }: LayerRecord): boolean {
  return status === 'unread' || status === 'reread'
}

/** The records to ask for: names of one inode are read once, by the first of them. */
function firstOfEachInode(batch: readonly LayerRecord[], links: ReadonlyMap<bigint, LayerRecord>): LayerRecord[] {
  const seen = new Set<bigint>()
  return batch.filter((record) => {
    if (!isToRead(record)) return false
    if (record.linkGroup === 0n) return true
    const isFirst = !seen.has(record.inode) && !links.has(record.inode)
    seen.add(record.inode)
    return isFirst
  })
}

/** What was read by another name of the same inode, if that was in the same state. */
function linked(links: ReadonlyMap<bigint, LayerRecord>, record: LayerRecord): LayerRecord | undefined {
  const other = record.linkGroup === 0n ? undefined : links.get(record.inode)
  return other !== undefined && other.ctimeNs === record.ctimeNs && other.mtimeNs === record.mtimeNs && other.sizeBytes === record.sizeBytes ? other : undefined
}

function isSameContents(record: LayerRecord, contents: FileContents): boolean {
  if (record.extents.length !== contents.extents.length || !record.digests.equals(contents.digests)) return false
  return record.extents.every((extent, index) => {
    const other = contents.extents[index]
    return other !== undefined && extent.lengthBytes === other.lengthBytes && extent.block < 0 === other.block < 0
  })
}

/** What a session's `read` gives, file by file. */
class ContentStream {
  readonly #contents: AsyncIterator<LayerContent>
  readonly #pieces: FilePieces
  readonly #blocks: BlockWriter
  readonly #options: ReadOptions
  /** Of the file that comes next. */
  index = 0

  constructor(contents: AsyncIterable<LayerContent>, pieces: FilePieces, blocks: BlockWriter, options: ReadOptions) {
    this.#contents = contents[Symbol.asyncIterator]()
    this.#pieces = pieces
    this.#blocks = blocks
    this.#options = options
  }

  /** Undefined when it is not the file any more that `record` tells of. */
  async next(record: LayerRecord): Promise<FileContents | undefined> {
    for (;;) {
      this.#options.abort?.throwIfAborted()
      const { value, done } = await this.#contents.next()
      if (done === true || value.index !== this.index)
        throw new MagsError(
          'workspace_not_savable',
          `The workspace could not be read: its layer gave no contents for ${words(record.path)}. Try again; if it stays so, start a new sandbox.`,
        )
      if (value.kind === 'data') this.#pieces.data(value.bytes)
      else if (value.kind === 'hole') this.#pieces.hole(value.lengthBytes)
      else {
        this.index++
        if (value.kind === 'end' && isStamp(value.stamp, record)) {
          const contents = this.#pieces.end()
          return contents.sizeBytes === record.sizeBytes ? contents : undefined
        }
        this.#pieces.drop()
        return undefined
      }
      if (this.#pieces.extentCount > treeLimits.extentsPerFile)
        throw new MagsError(
          'workspace_not_savable',
          `The file ${words(record.path)} has too many holes to be saved. Copy it without holes (cp --sparse=never), or remove it.`,
        )
      if (this.#options.paced) await this.#blocks.room()
    }
  }

  /** To the end of the conversation, so that the session may be asked something else. */
  async end(): Promise<void> {
    const { done } = await this.#contents.next()
    if (done !== true)
      throw new MagsError('workspace_not_savable', 'The workspace could not be read: its layer gave contents nobody asked for. Start a new sandbox.')
  }

  async close(): Promise<void> {
    await this.#contents.return?.()
  }
}

function isStamp(stamp: Stamp, record: LayerRecord): boolean {
  return stamp.inode === record.inode && stamp.sizeBytes === record.sizeBytes && stamp.mtimeNs === record.mtimeNs && stamp.ctimeNs === record.ctimeNs
}

function changedMeanwhile(path: Buffer): MagsError {
  return new MagsError('workspace_not_savable', `The file ${words(path)} changed while it was saved, although nothing was running. Save again.`)
}

function words(path: Buffer): string {
  return JSON.stringify(path.toString())
}
