import type { LayerEntry } from '../../layers/layer-session.ts'
import { sha256 } from '../blocks/block-codec.ts'

/** Numbers for the hard links of one save. An inode keeps the number it had in the version before. */
export class LinkGroups {
  readonly #groups = new Map<bigint, bigint>()

  /** Tells that this inode has that number. */
  keep(inode: bigint, group: bigint): void {
    if (group !== 0n) this.#groups.set(inode, group)
  }

  /** 0n for a path with one name only. Otherwise a number nobody else has, not even in the version under this layer: so inode and time are in it. */
  of({ path, links, stamp, kind }: LayerEntry): bigint {
    const known = this.#groups.get(stamp.inode)
    if (links <= 1 || kind === 'directory') return 0n
    if (known !== undefined) return known
    const digest = sha256(Buffer.concat([path, Buffer.from(`\0${stamp.inode} ${stamp.ctimeNs}`)]))
    const group = digest.readBigUInt64LE(0) || 1n
    this.#groups.set(stamp.inode, group)
    return group
  }
}
