import { nameLimitBytes, pathLimitBytes } from './layer-frame-constants.ts'
import { LayerProtocolError } from './layer-protocol-error.ts'

const slash = 0x2f
const dot = 0x2e

/** Whether this is a path below a layer's root: see `LayerEntry.path`. The root's own, empty one is not. */
export function isLayerPath(path: Buffer): boolean {
  if (path.length === 0 || path.length > pathLimitBytes) return false
  let start = 0
  for (let at = 0; at <= path.length; at++) {
    const byte = at === path.length ? slash : path[at]
    if (byte === 0) return false
    if (byte !== slash) continue
    if (!isName(path, start, at)) return false
    start = at + 1
  }
  return true
}

function isName(path: Buffer, start: number, end: number): boolean {
  const length = end - start
  if (length === 0 || length > nameLimitBytes) return false
  return path[start] !== dot || length > 2 || (length === 2 && path[start + 1] !== dot)
}

/** Negative, zero or positive, in tree order: by bytes, with `/` before any other. */
export function compareLayerPaths(a: Buffer, b: Buffer): number {
  const most = Math.min(a.length, b.length)
  for (let at = 0; at < most; at++) {
    const one = a[at] as number
    const other = b[at] as number
    if (one === other) continue
    return (one === slash ? 0 : one) - (other === slash ? 0 : other)
  }
  return a.length - b.length
}

/** Checks that a walk tells a tree: the root first, every other path in a folder told before, names of one folder in the order of their bytes. */
export class TreeOrder {
  readonly #folders: { readonly path: Buffer; last: Buffer | undefined }[] = []

  /** @throws LayerProtocolError */
  next(path: Buffer, isFolder: boolean) {
    if (this.#folders.length === 0) {
      if (path.length !== 0 || !isFolder) throw new LayerProtocolError('a walk that does not begin with the root')
    } else this.#descend(path)
    if (isFolder) this.#folders.push({ path, last: undefined })
  }

  get begun(): boolean {
    return this.#folders.length > 0
  }

  #descend(path: Buffer) {
    const cut = path.lastIndexOf(slash)
    const parent = Math.max(cut, 0)
    const name = path.subarray(cut + 1)
    let top = this.#folders.at(-1)
    while (top !== undefined && top.path.length > parent) {
      this.#folders.pop()
      top = this.#folders.at(-1)
    }
    // The root stays: its path is the shortest.
    if (path.length === 0 || top === undefined || top.path.length !== parent || top.path.compare(path, 0, parent) !== 0) {
      throw new LayerProtocolError('a path whose folder was not told before it')
    }
    if (top.last !== undefined && top.last.compare(name) >= 0) throw new LayerProtocolError('paths out of order')
    top.last = name
  }
}
