import type { ExtendedAttribute } from '../../layers/layer-session.ts'
import { imageInvalid } from './image-invalid.ts'
import type { TarEntry } from './read-tar.ts'

/** Ids that a sandbox has. */
export const idsPerSandbox = 65_536
const longestName = 255
const longestPath = 4095
const mostAttributeBytes = 64 << 10
/** 2106: what file systems with 32 bits for it still have. */
const latestTimeNs = 0xffff_ffffn * 1_000_000_000n

/** The parts of an entry's path. Throws 'image_invalid' for one that could lead anywhere else. The archive's own root has none. */
export function checkedPath(path: string, what = 'its path'): string[] {
  if (path.length > longestPath) throw imageInvalid(`${what} has ${path.length} bytes; at most ${longestPath}`, path)
  // Some makers of layers call the root itself so.
  if (/^\/+$/.test(path)) return []
  if (path.startsWith('/')) throw imageInvalid(`${what} is absolute`, path)
  if (path.includes('\0')) throw imageInvalid(`${what} has a NUL byte`, path)
  const parts = path.split('/').filter((part) => part !== '' && part !== '.')
  if (parts.includes('..')) throw imageInvalid(`${what} has '..' in it`, path)
  const long = parts.find((part) => part.length > longestName)
  if (long !== undefined) throw imageInvalid(`a name in ${what} has ${long.length} bytes; at most ${longestName}`, path)
  return parts
}

/** Refuses what no file of a sandbox can have. */
export function checkEntry(entry: TarEntry): void {
  const { uid, gid, mode, path } = entry
  for (const [what, id] of [
    ['owner', uid],
    ['group', gid],
  ] as const) {
    if (id < 0 || id >= idsPerSandbox) throw imageInvalid(`its ${what} is ${id}; sandboxes have 0 to ${idsPerSandbox - 1}`, path)
  }
  if (mode < 0) throw imageInvalid(`its mode is ${mode}`, path)
  if (entry.kind !== 'symlink') return
  if (entry.target === '' || entry.target.length > longestPath || entry.target.includes('\0'))
    throw imageInvalid(`the target of a link has 1 to ${longestPath} bytes and no NUL`, path)
}

/** Before 1970 and after 2106 become those. */
export function clampTime(ns: bigint): bigint {
  return ns < 0n ? 0n : ns > latestTimeNs ? latestTimeNs : ns
}

/** What of its attributes an image keeps: file capabilities and those of users. Others are of the machine the archive comes from. */
export function keptAttributes({ attributes, path }: TarEntry): readonly ExtendedAttribute[] {
  if (attributes.length === 0) return attributes
  const kept = attributes.filter(({ name }) => name === 'security.capability' || (name.startsWith('user.') && name.length > 5 && name.length <= longestName))
  const bytes = kept.reduce((sum, { name, value }) => sum + name.length + value.length, 0)
  if (bytes > mostAttributeBytes) throw imageInvalid('it has more than 64 KiB of attributes', path)
  return kept.toSorted((a, b) => (a.name < b.name ? -1 : 1))
}
