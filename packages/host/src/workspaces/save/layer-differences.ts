import { MagsError } from '@mags/protocol'
import type { LayerChange, LayerEntry } from '../../layers/layer-session.ts'
import { compareTreeOrder } from '../tree/tree-order.ts'
import { treeLimits } from '../tree/tree-record.ts'
import { Cursor } from './cursor.ts'
import { bareRecord, type LayerRecord, type LayerTree, LayerTreeWriter } from './layer-tree.ts'
import type { LinkGroups } from './link-groups.ts'

const nothing = Buffer.alloc(0)

/** What differs from before, in tree order, and how much of it must be read. */
export interface Differences {
  readonly tree: LayerTree
  readonly unreadFiles: number
  readonly unreadBytes: number
}

/** Records of a walk that are not what they were `before`; those in `recheck` have to be read again though they look the same. */
export async function differencesOfWalk(
  walk: AsyncIterable<readonly LayerEntry[]>,
  before: LayerTree,
  recheck: LayerTree,
  groups: LinkGroups,
): Promise<Differences> {
  const found = new Collector()
  const old = new Cursor(before)
  const doubtful = new Cursor(recheck)
  let last: Buffer | undefined
  let count = 0
  for await (const entries of walk) {
    for (const entry of entries) {
      if (last === undefined ? entry.path.length > 0 : compareTreeOrder(last, entry.path) >= 0) throw contradiction(entry.path)
      last = entry.path
      if (++count > treeLimits.entries)
        throw new MagsError('workspace_not_savable', `The workspace has more than ${treeLimits.entries} paths. Remove some, or pack them into an archive.`)
      for (const gone of old.before(entry.path)) found.add(bareRecord(gone.path, 'removed'))
      const known = old.at(entry.path)
      const isDoubtful = doubtful.at(entry.path) !== undefined
      const record = compare(entry, known, isDoubtful, groups)
      if (record !== undefined) found.add(record)
    }
  }
  for (const gone of old.before(undefined)) found.add(bareRecord(gone.path, 'removed'))
  return found.finish()
}

/** The differences a session tells of, and what is in `recheck` besides: that must be read again though it has not changed. */
export async function differencesOfChanges(changes: AsyncIterable<readonly LayerChange[]>, recheck: LayerTree, groups: LinkGroups): Promise<Differences> {
  const found = new Collector()
  const doubtful = new Cursor(recheck)
  let last: Buffer | undefined
  for await (const batch of changes) {
    for (const change of batch) {
      const path = 'removed' in change ? change.removed : change.present.path
      if (last !== undefined && compareTreeOrder(last, path) >= 0) throw contradiction(path)
      last = path
      for (const record of doubtful.before(path)) found.add(record)
      doubtful.at(path)
      found.add('removed' in change ? bareRecord(path, 'removed') : recordOf(change.present, 'unread', groups))
    }
  }
  for (const record of doubtful.before(undefined)) found.add(record)
  return found.finish()
}

function compare(entry: LayerEntry, known: LayerRecord | undefined, isDoubtful: boolean, groups: LinkGroups): LayerRecord | undefined {
  const sameContents = known !== undefined && known.kind === 'file' && known.status !== 'device' && entry.kind === 'file' && isSameStamp(entry, known)
  if (known !== undefined && sameContents && entry.links > 1) groups.keep(entry.stamp.inode, known.linkGroup)
  const fresh = recordOf(entry, 'unread', groups)
  if (known === undefined) return fresh
  const record = sameContents ? { ...fresh, extents: known.extents, digests: known.digests, status: 'kept' as const } : fresh
  if (sameContents && isDoubtful && record.sizeBytes > 0) return { ...record, status: isSameRecord(record, known) ? 'reread' : 'unread' }
  return (sameContents || record.status !== 'unread') && isSameRecord(record, known) ? undefined : record
}

function isSameStamp({ stamp }: LayerEntry, known: LayerRecord): boolean {
  return stamp.inode === known.inode && stamp.ctimeNs === known.ctimeNs && stamp.mtimeNs === known.mtimeNs && stamp.sizeBytes === known.sizeBytes
}

/** Whether everything but contents and stamps is the same. */
function isSameRecord(a: LayerRecord, b: LayerRecord): boolean {
  if (a.kind !== b.kind || a.status !== b.status || a.mode !== b.mode || a.uid !== b.uid || a.gid !== b.gid || a.mtimeNs !== b.mtimeNs) return false
  if (a.sizeBytes !== b.sizeBytes || a.linkGroup !== b.linkGroup || a.attributes.length !== b.attributes.length) return false
  if (!(a.target ?? nothing).equals(b.target ?? nothing)) return false
  return a.attributes.every(({ name, value }, index) => name === b.attributes[index]?.name && value.equals(b.attributes[index].value))
}

/** Contents have to be read only where there are some. */
function recordOf(entry: LayerEntry, status: 'unread', groups: LinkGroups): LayerRecord {
  const { path, kind, stamp } = entry
  if (kind === 'device') return bareRecord(path, 'device')
  if (kind === 'whiteout') return bareRecord(path, 'kept')
  const sizeBytes = kind === 'file' ? stamp.sizeBytes : 0
  return {
    path,
    kind,
    mode: entry.mode,
    uid: entry.uid,
    gid: entry.gid,
    mtimeNs: stamp.mtimeNs,
    sizeBytes,
    target: entry.target,
    attributes: entry.attributes,
    linkGroup: groups.of(entry),
    extents: [],
    status: sizeBytes > 0 ? status : 'kept',
    inode: kind === 'file' ? stamp.inode : 0n,
    ctimeNs: kind === 'file' ? stamp.ctimeNs : 0n,
    digests: nothing,
  }
}

/** The layer worker is not trusted to keep the order, on which everything here is built. */
export function contradiction(path: Buffer): MagsError {
  return new MagsError(
    'workspace_not_savable',
    `The workspace could not be read: its layer gave the path ${JSON.stringify(path.toString())} out of order. Try again; if it stays so, start a new sandbox.`,
  )
}

class Collector {
  readonly #writer = new LayerTreeWriter()
  #unreadFiles = 0
  #unreadBytes = 0

  add(record: LayerRecord): void {
    this.#writer.add(record)
    if (record.status !== 'unread' && record.status !== 'reread') return
    this.#unreadFiles++
    this.#unreadBytes += record.sizeBytes
  }

  finish(): Differences {
    return { tree: this.#writer.finish(), unreadFiles: this.#unreadFiles, unreadBytes: this.#unreadBytes }
  }
}
