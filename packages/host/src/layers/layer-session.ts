/**
 * A layer is the upper folder of an overlay file system: what a workspace or one of its forks changed. It is read and written by the *layer worker* (native/layer), a small program confined to that
 * folder: on the host for containers, inside the guest for VMs. What it says is never trusted: names, sizes and counts are bounded and checked before they get here.
 */
export type LayerEntryKind = 'directory' | 'file' | 'symlink' | 'fifo' | 'socket' | 'whiteout' | 'device'

/** Extended attribute; `name` is one of those a workspace keeps (`user.*`, `security.capability`, POSIX ACLs, `trusted.overlay.opaque`). */
export interface ExtendedAttribute {
  readonly name: string
  readonly value: Buffer
}

/** What tells that a file has not changed since it was looked at. */
export interface Stamp {
  readonly inode: bigint
  readonly sizeBytes: number
  readonly mtimeNs: bigint
  readonly ctimeNs: bigint
}

/** One path of a layer. */
export interface LayerEntry {
  /** Relative to the layer's root, components (1 to 255 bytes, any but NUL and `/`, never `.` or `..`) joined by `/`; empty for the root itself. At most 4,095 bytes, not necessarily UTF-8. */
  readonly path: Buffer
  readonly kind: LayerEntryKind
  /** Permission bits with setuid, setgid and sticky: 0 to 0o7777. */
  readonly mode: number
  /** As on disk: 0 to 65,535 inside a sandbox. */
  readonly uid: number
  readonly gid: number
  readonly stamp: Stamp
  /** Names of this inode; over 1 they are hard links of one another (same `stamp.inode`). */
  readonly links: number
  /** Where a symbolic link points: 1 to 4,095 bytes. */
  readonly target?: Buffer
  /** In the order of their names. */
  readonly attributes: readonly ExtendedAttribute[]
}

/** One difference between two walks. A path whose kind changed is `present` only. Removal of a folder is one difference for each path that was in it, too. */
export type LayerChange = { readonly present: LayerEntry } | { readonly removed: Buffer }

/** Part of a file that was asked for. */
export type LayerContent =
  | { readonly index: number; readonly kind: 'data'; readonly bytes: Buffer }
  /** A hole of so many bytes (sparse file). */
  | { readonly index: number; readonly kind: 'hole'; readonly lengthBytes: number }
  /** Whole; the stamp is of after the last byte was read. When it is not the one of before, the content may be torn. */
  | { readonly index: number; readonly kind: 'end'; readonly stamp: Stamp }
  /** Gone, or no regular file any more. */
  | { readonly index: number; readonly kind: 'missing' }

/** What to put into an empty layer, in tree order. */
export type LayerWrite =
  | {
      readonly kind: 'entry'
      readonly entry: Omit<LayerEntry, 'stamp' | 'links'> & { readonly sizeBytes: number; readonly mtimeNs: bigint; readonly linkTo?: Buffer }
    }
  /** Bytes of the file named last, from `offset` on; what is not written is a hole. */
  | { readonly kind: 'data'; readonly offset: number; readonly bytes: Buffer }

/**
 * A conversation with a worker about one layer. One call at a time; any error ends the session.
 *
 *     open ──close, error──▶ closed: every call rejects
 *
 * Tree order: folders before what is in them, the names of one folder in the order of their bytes; so `a`, `a/b`, `a!`.
 */
export interface LayerSession {
  /** Every path in tree order, the root first; the worker remembers them for `changes`. */
  walk(): AsyncIterable<readonly LayerEntry[]>
  /** What differs from the last `walk` or `changes`, in tree order; only that is sent, so that a sandbox may be frozen meanwhile. Needs a walk before. */
  changes(): AsyncIterable<readonly LayerChange[]>
  /**
   * The contents of regular files, in the order asked. Pages of a file that are mapped and dirty are written out before it is read, so that a later write through the mapping
   * changes its stamp.
   */
  read(paths: readonly Buffer[]): AsyncIterable<LayerContent>
  /** Fills an empty layer. Rejects at the first path that cannot be written, naming it. */
  write(tree: AsyncIterable<LayerWrite>): Promise<void>
  close(): void
}
