import type { LayerWrite } from '../../layers/layer-session.ts'
import { imageInvalid } from './image-invalid.ts'
import type { Child, FolderNode, ImageNode, ImageTree } from './image-tree.ts'
import type { ImportWork } from './import-work.ts'
import { megabytes } from './progress.ts'

/** With the folder it is written into the path must fit into what the system takes, 4,095 bytes: for mkfs.erofs, and to be removed again. */
const longestPath = 3000

interface Level {
  /** Ends with `/`, or is empty. */
  readonly prefix: string
  readonly names: readonly string[]
  readonly children: ReadonlyMap<string, Child>
  next: number
}

/** The tree as a layer worker wants it: folders before what is in them, names in the order of their bytes. */
export async function* treeWrites(tree: ImageTree, { abort, progress }: ImportWork): AsyncGenerator<LayerWrite> {
  const firstPaths = new Map<ImageNode, Buffer>()
  let entries = 0
  let bytes = 0
  yield entryOf(tree.root, Buffer.alloc(0), undefined)
  const levels = [levelOf(tree.root, '')]
  for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
    const name = level.names[level.next++]
    if (name === undefined) {
      levels.pop()
      continue
    }
    abort.throwIfAborted()
    const { node } = level.children.get(name) as Child
    const shown = `${level.prefix}${name}`
    if (shown.length > longestPath) throw imageInvalid(`its path has ${shown.length} bytes; at most ${longestPath}`, shown)
    const path = Buffer.from(shown, 'latin1')
    const linkTo = node.kind === 'directory' ? undefined : firstPaths.get(node)
    yield entryOf(node, path, linkTo)
    if (node.kind === 'directory') levels.push(levelOf(node, `${shown}/`))
    else if (linkTo === undefined) firstPaths.set(node, path)
    if (node.kind === 'file' && linkTo === undefined) {
      let offset = 0
      for await (const piece of node.content.read()) {
        yield { kind: 'data', offset, bytes: piece }
        offset += piece.length
        bytes += piece.length
        progress.tick(() => `writing the file system: ${entries} entries, ${megabytes(bytes)}`)
      }
    }
    entries++
    progress.tick(() => `writing the file system: ${entries} entries, ${megabytes(bytes)}`)
  }
}

function levelOf({ children }: FolderNode, prefix: string): Level {
  // One character for each byte, so this is the order of the bytes.
  return { prefix, names: [...children.keys()].sort((a, b) => (a < b ? -1 : 1)), children, next: 0 }
}

function entryOf(node: ImageNode, path: Buffer, linkTo: Buffer | undefined): LayerWrite {
  const { kind, mode, uid, gid, mtimeNs, attributes } = node
  return {
    kind: 'entry',
    entry: {
      path,
      kind,
      mode,
      uid,
      gid,
      mtimeNs,
      attributes,
      sizeBytes: node.kind === 'file' ? node.content.sizeBytes : 0,
      ...(node.kind === 'symlink' ? { target: Buffer.from(node.target, 'latin1') } : {}),
      ...(linkTo === undefined ? {} : { linkTo }),
    },
  }
}
