import { imageInvalid } from './image-invalid.ts'
import type { FolderNode, ImageTree } from './image-tree.ts'
import { contentOfBytes } from './spool.ts'

const mountPoints: readonly (readonly [name: string, mode: number])[] = [
  ['proc', 0o555],
  ['sys', 0o555],
  ['dev', 0o755],
  ['run', 0o755],
  ['tmp', 0o1777],
]
const hosts = '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n'

/**
 * Makes what every sandbox counts on: folders that it mounts on, nothing in those that are the kernel's, a home for root, and plain files where each sandbox gets its own name and addresses. Rejects with 'image_invalid' when there is
 * no shell.
 */
export function completeTree(tree: ImageTree): void {
  const shell = tree.find('bin/sh')
  if (shell?.kind !== 'file' || (shell.mode & 0o111) === 0)
    throw imageInvalid('the image has no shell: /bin/sh must be a program in it, for every script, command and SSH session is run by it')
  const { root } = tree
  root.mode = 0o755
  for (const [name, mode] of mountPoints) {
    const folder = ownFolder(root, name)
    folder.mode = mode
    if (name !== 'run' && name !== 'tmp') folder.children.clear()
  }
  const home = root.children.get('root')
  if (home === undefined) ownFolder(root, 'root').mode = 0o700
  const etc = tree.folder('etc')
  for (const [name, text] of [
    ['resolv.conf', ''],
    ['hosts', hosts],
    ['hostname', ''],
    ['machine-id', ''],
  ] as const) {
    const before = etc.children.get(name)?.node
    const common = before?.kind === 'file' ? { mode: before.mode, uid: before.uid, gid: before.gid } : { mode: 0o644, uid: 0, gid: 0 }
    etc.children.set(name, { layer: 0, node: { ...common, mtimeNs: 0n, attributes: [], kind: 'file', content: contentOfBytes(Buffer.from(text)) } })
  }
}

/** A folder of the root that is one itself: mounting follows no link. */
function ownFolder(root: FolderNode, name: string): FolderNode {
  const before = root.children.get(name)?.node
  if (before?.kind === 'directory') return before
  const folder: FolderNode = { kind: 'directory', mode: 0o755, uid: 0, gid: 0, mtimeNs: 0n, attributes: [], children: new Map() }
  root.children.set(name, { node: folder, layer: 0 })
  return folder
}
