const slash = 0x2f

/** Order of two paths in a tree: as bytes, with `/` before every other. Negative when `a` comes first. */
export function compareTreeOrder(a: Uint8Array, b: Uint8Array): number {
  const shorter = Math.min(a.length, b.length)
  for (let at = 0; at < shorter; at++) {
    const left = a[at] as number
    const right = b[at] as number
    if (left !== right) return (left === slash ? 0 : left) - (right === slash ? 0 : right)
  }
  return a.length - b.length
}

/** Whether `path` lies anywhere under `folder`; everything but the root lies under the root. */
export function isUnder(path: Uint8Array, folder: Uint8Array): boolean {
  if (folder.length === 0) return path.length > 0
  if (path.length <= folder.length || path[folder.length] !== slash) return false
  for (let at = folder.length - 1; at >= 0; at--) if (path[at] !== folder[at]) return false
  return true
}

/** Whether the path is one that `layer-session.ts` allows. */
export function isTreePath(path: Uint8Array): boolean {
  if (path.length === 0) return true
  if (path.length > 4_095) return false
  let start = 0
  for (let at = 0; at <= path.length; at++) {
    const byte = at === path.length ? slash : (path[at] as number)
    if (byte === 0) return false
    if (byte !== slash) continue
    const length = at - start
    if (length === 0 || length > 255) return false
    if (length <= 2 && path[start] === 0x2e && (length === 1 || path[start + 1] === 0x2e)) return false
    start = at + 1
  }
  return true
}
