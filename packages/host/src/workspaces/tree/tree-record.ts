import type { ExtendedAttribute, LayerEntryKind } from '../../layers/layer-session.ts'

/** Devices are not kept. */
export type TreeKind = Exclude<LayerEntryKind, 'device'>

/** In the order of their numbers in the format. */
export const treeKinds: readonly TreeKind[] = ['directory', 'file', 'symlink', 'fifo', 'socket', 'whiteout']

/** A run of a file's bytes: `lengthBytes` from `position` on of the raw bytes of block number `block` (of a `BlockTable`), or a hole when `block` is `hole`. */
export interface Extent {
  readonly block: number
  readonly position: number
  readonly lengthBytes: number
}

export const hole = -1

/** One path of a version. */
export interface TreeRecord {
  /** As `LayerEntry.path`. */
  readonly path: Buffer
  readonly kind: TreeKind
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtimeNs: bigint
  /** Of files; 0 for everything else. */
  readonly sizeBytes: number
  /** Of symbolic links. */
  readonly target?: Buffer | undefined
  readonly attributes: readonly ExtendedAttribute[]
  /** Names of one inode have the same number; 0n: only one name. */
  readonly linkGroup: bigint
  /** They cover the file from its first to its last byte. */
  readonly extents: readonly Extent[]
}

/** Most of everything, when written and when read. */
export const treeLimits = {
  entries: 1_000_000,
  pathBytes: 4_095,
  nameBytes: 255,
  targetBytes: 4_095,
  attributes: 256,
  attributeBytes: 65_536,
  extentsPerFile: 262_144,
  sizeBytes: 2 ** 50,
  id: 0xffff_fffe,
} as const

const nanosPerSecond = 1_000_000_000n
/** Signed 64-bit nanoseconds end here, in the year 2262. */
export const maxSeconds = 9_223_372_035

/** Seconds and the nanoseconds above them (0 to 999,999,999), also before 1970. */
export function splitTime(timeNs: bigint): { seconds: number; nanos: number } {
  let nanos = Number(timeNs % nanosPerSecond)
  let seconds = Number(timeNs / nanosPerSecond)
  if (nanos < 0) {
    nanos += 1_000_000_000
    seconds -= 1
  }
  return { seconds, nanos }
}

export function joinTime(seconds: number, nanos: number): bigint {
  return BigInt(seconds) * nanosPerSecond + BigInt(nanos)
}
