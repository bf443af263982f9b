import { createHash } from 'node:crypto'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { BlockTable, digestBytes } from '../blocks/block-table.ts'
import type { Manifest } from '../repository/repository.ts'
import type { LayerTree } from './layer-tree.ts'
import type { SaveState } from './save-state.ts'

const magic = 'MAGSTATE'
const formatNumber = 1
const hashBytes = 32
const maxPartBytes = 256 * 1024 * 1024
const blockBytes = 16 + digestBytes

/** What comes first: everything small, and how many parts of what follow. */
interface Head {
  readonly format: number
  readonly manifest: Manifest
  readonly skippedCount: number
  readonly renewedPacks: number
  readonly lowerKey: string | null
  readonly packs: readonly string[]
  readonly blocks: number
  readonly trees: readonly { readonly count: number; readonly chunks: number }[]
}

/**
 * Keeps a state for the next program: a head, the blocks and the packed trees, each with its length before it, and a SHA-256 of it all. The file is replaced at once or not at all.
 * It is not forced to the disk: a state that is lost or damaged costs time, nothing else.
 */
export async function writeState(file: string, state: SaveState): Promise<void> {
  const packNumbers = new Map<string, number>()
  for (let block = 0; block < state.blocks.count; block++) {
    const pack = state.blocks.pack(block)
    if (!packNumbers.has(pack)) packNumbers.set(pack, packNumbers.size)
  }
  const trees = [state.layer, state.recheck, ...(state.lower === undefined ? [] : [state.lower.tree])]
  const head: Head = {
    format: formatNumber,
    manifest: state.manifest,
    skippedCount: state.skippedCount,
    renewedPacks: state.renewedPacks,
    lowerKey: state.lower?.key ?? null,
    packs: [...packNumbers.keys()],
    blocks: state.blocks.count,
    trees: trees.map(({ count, chunks }) => ({ count, chunks: chunks.length })),
  }
  const unfinished = `${file}.new`
  try {
    await using out = await open(unfinished, 'w', 0o600)
    const hash = createHash('sha256')
    const write = async (bytes: Buffer): Promise<void> => {
      const length = Buffer.alloc(4)
      length.writeUInt32LE(bytes.length)
      for (const part of [length, bytes]) {
        hash.update(part)
        await out.writeFile(part)
      }
    }
    await write(Buffer.from(magic + JSON.stringify(head)))
    await write(packBlocks(state.blocks, packNumbers))
    for (const tree of trees) for (const chunk of tree.chunks) await write(chunk)
    await out.writeFile(hash.digest())
    await rename(unfinished, file)
  } catch (error) {
    await rm(unfinished, { force: true })
    throw error
  }
}

/** Undefined when there is none, or it is damaged or of another format: then everything has to be read again. */
export async function readState(file: string): Promise<SaveState | undefined> {
  try {
    await using input = await open(file, 'r')
    return await read(input)
  } catch {
    return undefined
  }
}

async function read(input: FileHandle): Promise<SaveState> {
  const hash = createHash('sha256')
  const { size } = await input.stat()
  let at = 0
  const bytes = async (length: number): Promise<Buffer> => {
    if (length > Math.min(maxPartBytes, size - at)) throw new Error('the state ends too early')
    const buffer = Buffer.allocUnsafe(length)
    const { bytesRead } = await input.read(buffer, 0, length, at)
    if (bytesRead !== length) throw new Error('the state ends too early')
    at += length
    return buffer
  }
  const part = async (): Promise<Buffer> => {
    const length = await bytes(4)
    hash.update(length)
    const content = await bytes(length.readUInt32LE())
    hash.update(content)
    return content
  }
  const text = (await part()).toString()
  const head = JSON.parse(text.startsWith(magic) ? text.slice(magic.length) : '') as Head
  if (head.format !== formatNumber) throw new Error('the state has another format')
  const blocks = await part()
  const trees: LayerTree[] = []
  for (const { count, chunks } of head.trees) {
    const tree: Buffer[] = []
    for (let index = 0; index < chunks; index++) tree.push(await part())
    trees.push({ count, chunks: tree })
  }
  const [layer, recheck, lower] = trees
  if (!(await bytes(hashBytes)).equals(hash.digest()) || at !== size) throw new Error('the state is damaged')
  if (layer === undefined || recheck === undefined) throw new Error('the state is not whole')
  return {
    manifest: head.manifest,
    blocks: unpackBlocks(blocks, head),
    layer,
    recheck,
    lower: head.lowerKey === null || lower === undefined ? undefined : { key: head.lowerKey, tree: lower },
    skippedCount: head.skippedCount,
    renewedPacks: head.renewedPacks,
    walkedBy: undefined,
    index: undefined,
  }
}

function packBlocks(table: BlockTable, packNumbers: ReadonlyMap<string, number>): Buffer {
  const out = Buffer.alloc(table.count * blockBytes)
  for (let block = 0; block < table.count; block++) {
    let at = block * blockBytes
    at = out.writeUInt32LE(packNumbers.get(table.pack(block)) ?? 0, at)
    at = out.writeUInt32LE(table.offset(block), at)
    at = out.writeUInt32LE(table.storedBytes(block), at)
    at = out.writeUInt32LE(table.rawBytes(block), at)
    out.set(table.digest(block), at)
  }
  return out
}

function unpackBlocks(bytes: Buffer, { packs, blocks }: Head): BlockTable {
  const table = new BlockTable()
  for (let block = 0; block < blocks; block++) {
    const at = block * blockBytes
    const place = {
      pack: packs[bytes.readUInt32LE(at)] ?? '',
      offset: bytes.readUInt32LE(at + 4),
      storedBytes: bytes.readUInt32LE(at + 8),
      rawBytes: bytes.readUInt32LE(at + 12),
      digest: bytes.subarray(at + 16, at + 16 + digestBytes),
    }
    if (table.intern(place) !== block) throw new Error('the state names a block twice')
  }
  return table
}
