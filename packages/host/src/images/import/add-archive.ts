import { setImmediate as nextTurn } from 'node:timers/promises'
import type { ByteReader } from './byte-reader.ts'
import { checkEntry, checkedPath, clampTime, keptAttributes } from './entry-rules.ts'
import { imageInvalid } from './image-invalid.ts'
import type { FolderNode, ImageNode, ImageTree, NodeAttributes, Place } from './image-tree.ts'
import { type ImportLimits, tooMuch } from './import-limits.ts'
import type { ImportMemory } from './import-memory.ts'
import { readTar, type TarEntry } from './read-tar.ts'
import type { Spool } from './spool.ts'

/** What came in so far, of all archives of one import. */
export interface ImportCounts {
  entries: number
  /** Headers that only extend others, and their bytes. */
  extensions: number
  extensionBytes: number
  metadataBytes: number
  /** Of streams as they came, and as they were when they were unpacked. */
  packedBytes: number
  unpackedBytes: number
  skippedDevices: number
  droppedAttributes: number
}

export interface AddArchiveOptions {
  readonly spool: Spool
  readonly limits: ImportLimits
  readonly counts: ImportCounts
  readonly memory: ImportMemory
  /** Number of the layer, from 0; a whole root file system is 0. */
  readonly layer: number
  /** Names that begin with `.wh.` take away what is below (OCI image specification, "Whiteouts"). */
  readonly whiteouts: boolean
  readonly onProgress: () => void
}

const whiteout = '.wh.'
const opaque = '.wh..wh..opq'
/** About what an entry costs besides its text. */
const entryBytes = 100
/** Others want to be served, too. */
const longestTurnMs = 20
/** What makers of archives write for an entry: a name, a target, times and attributes. */
const extensionsPerEntry = 4
/** They are read and forgotten, so they may be more than what is kept of them. */
const extensionBytesPerMetadata = 4

/** Puts an archive on top of a tree; bytes of files go to the spool. Rejects with 'image_invalid' naming the entry and the rule, and 'too_large'. */
export async function addArchive(tree: ImageTree, reader: ByteReader, options: AddArchiveOptions): Promise<void> {
  const { limits, counts, memory } = options
  let turnBegan = performance.now()
  const onHeader = async (extensionBytes: number) => {
    if (performance.now() - turnBegan > longestTurnMs) {
      await nextTurn()
      turnBegan = performance.now()
    }
    if (extensionBytes > 0) countExtension(options, extensionBytes)
  }
  for await (const entry of readTar(reader, onHeader)) {
    counts.entries++
    if (counts.entries > limits.maxEntries) throw tooMuch(`it has more than ${limits.maxEntries} entries`)
    const metadataBytes =
      entryBytes + entry.path.length + entry.target.length + entry.attributes.reduce((sum, { name, value }) => sum + name.length + value.length, 0)
    counts.metadataBytes += metadataBytes
    memory.take(metadataBytes)
    if (counts.metadataBytes > limits.maxMetadataBytes)
      throw tooMuch(`names, links and attributes of its entries are larger than ${limits.maxMetadataBytes >> 20} MB`)
    await addEntry(tree, entry, options)
    options.onProgress()
  }
}

function countExtension({ counts, limits }: AddArchiveOptions, bytes: number) {
  counts.extensions++
  counts.extensionBytes += bytes
  const [mostExtensions, mostBytes] = [limits.maxEntries * extensionsPerEntry, limits.maxMetadataBytes * extensionBytesPerMetadata]
  if (counts.extensions > mostExtensions) throw tooMuch(`it has more than ${mostExtensions} extended headers`)
  if (counts.extensionBytes > mostBytes) throw tooMuch(`its extended headers are larger than ${mostBytes >> 20} MB`)
}

async function addEntry(tree: ImageTree, entry: TarEntry, options: AddArchiveOptions): Promise<void> {
  const { counts, layer } = options
  const parts = checkedPath(entry.path)
  const name = parts.at(-1)
  if (options.whiteouts && name?.startsWith(whiteout)) return takeAway(tree, parts, options)
  const isDevice = entry.kind === 'character-device' || entry.kind === 'block-device'
  if (isDevice && options.whiteouts && entry.deviceMajor === 0 && entry.deviceMinor === 0 && name !== undefined)
    // A whiteout as the kernel has it.
    return takeAway(tree, [...parts.slice(0, -1), `${whiteout}${name}`], options)
  if (isDevice) {
    counts.skippedDevices++
    return
  }
  checkEntry(entry)
  const attributes = keptAttributes(entry)
  counts.droppedAttributes += entry.attributes.length - attributes.length
  const common: NodeAttributes = { mode: entry.mode & 0o7777, uid: entry.uid, gid: entry.gid, mtimeNs: clampTime(entry.mtimeNs), attributes }
  const place = tree.place(parts.join('/'), layer)
  if (place === undefined) {
    if (entry.kind !== 'directory') throw imageInvalid('the root of an image is a folder', entry.path)
    Object.assign(tree.root, common)
    return
  }
  put(place, await nodeOf(tree, entry, common, place, options), entry, layer)
}

async function nodeOf(tree: ImageTree, entry: TarEntry, common: NodeAttributes, { folder, name }: Place, { spool }: AddArchiveOptions): Promise<ImageNode> {
  switch (entry.kind) {
    case 'directory': {
      const before = folder.children.get(name)?.node
      const children: FolderNode['children'] = before?.kind === 'directory' ? before.children : new Map()
      return { ...common, kind: 'directory', children }
    }
    case 'file': {
      const from = spool.sizeBytes
      for await (const piece of entry.content()) await spool.append(piece)
      return { ...common, kind: 'file', content: spool.content(from, entry.sizeBytes) }
    }
    case 'symlink':
      return { ...common, kind: 'symlink', target: entry.target }
    case 'fifo':
      return { ...common, kind: 'fifo' }
    default:
      return linkedNode(tree, entry)
  }
}

/** A hard link is one more name of what is there already. */
function linkedNode(tree: ImageTree, entry: TarEntry): ImageNode {
  const node = tree.find(checkedPath(entry.target, `the target of its hard link, ${JSON.stringify(entry.target.slice(0, 200))},`).join('/'), { follow: false })
  if (node === undefined) throw imageInvalid(`it is a hard link to ${JSON.stringify(entry.target)}, which is not in the archive before it`, entry.path)
  if (node.kind === 'directory') throw imageInvalid('it is a hard link to a folder', entry.path)
  return node
}

function put({ folder, name }: Place, node: ImageNode, entry: TarEntry, layer: number) {
  const before = folder.children.get(name)
  if (before?.layer === layer && before.node !== node) {
    const kinds = [before.node.kind, node.kind]
    if (kinds[0] !== kinds[1]) throw imageInvalid(`the archive has it twice, as ${kinds.join(' and as ')}`, entry.path)
  }
  folder.children.set(name, { node, layer })
}

function takeAway(tree: ImageTree, parts: readonly string[], { layer }: AddArchiveOptions) {
  const name = parts.at(-1) as string
  const parent = tree.find(parts.slice(0, -1).join('/'))
  if (parent?.kind !== 'directory') return
  if (name !== opaque) {
    const hidden = name.slice(whiteout.length)
    // `.wh..wh.` begins what AUFS noted for itself.
    if (hidden.startsWith(whiteout)) return
    const child = parent.children.get(hidden)
    if (child !== undefined && (child.layer !== layer || child.node.kind === 'directory')) takeLower(tree, parent, hidden, layer)
    return
  }
  for (const child of [...parent.children.keys()]) takeLower(tree, parent, child, layer)
}

/** What this very archive has put there stays. */
function takeLower(tree: ImageTree, parent: FolderNode, name: string, layer: number): boolean {
  tree.spend(1)
  const child = parent.children.get(name)
  if (child === undefined) return true
  if (child.node.kind === 'directory') {
    let isEmpty = true
    for (const below of [...child.node.children.keys()]) if (!takeLower(tree, child.node, below, layer)) isEmpty = false
    if (!isEmpty || child.layer === layer) return false
  } else if (child.layer === layer) return false
  parent.children.delete(name)
  return true
}
