import type { MagsError } from '@mags/protocol'
import { isKeptAttribute } from './layer-attributes.ts'
import { layerError } from './layer-error.ts'
import { attributesLimitBytes, changedPresent, changedRemoved, entryKinds, extentsLimit, idMax, pathLimitBytes } from './layer-frame-constants.ts'
import { compareLayerPaths, isLayerPath, type TreeOrder } from './layer-path.ts'
import { LayerPayloadReader } from './layer-payload-reader.ts'
import { LayerProtocolError } from './layer-protocol-error.ts'
import type { ExtendedAttribute, LayerChange, LayerContent, LayerEntry, Stamp } from './layer-session.ts'

/** Each frame the worker sends, read and checked. All of them throw LayerProtocolError for what no worker of ours says. */

export function decodeEntries(payload: Buffer, order: TreeOrder): LayerEntry[] {
  const reader = new LayerPayloadReader(payload)
  const entries: LayerEntry[] = []
  while (reader.left > 0) {
    const entry = readEntry(reader)
    order.next(entry.path, entry.kind === 'directory')
    entries.push(entry)
  }
  return entries
}

/** `last` is the path before the first of these; resolves with the path of the last. */
export function decodeChanges(payload: Buffer, last: Buffer | undefined): { changes: LayerChange[]; last: Buffer | undefined } {
  const reader = new LayerPayloadReader(payload)
  const changes: LayerChange[] = []
  let before = last
  while (reader.left > 0) {
    const change = readChange(reader)
    const path = 'present' in change ? change.present.path : change.removed
    if (before !== undefined && compareLayerPaths(before, path) >= 0) throw new LayerProtocolError('changes out of order')
    before = path
    changes.push(change)
  }
  return { changes, last: before }
}

function readChange(reader: LayerPayloadReader): LayerChange {
  const what = reader.u8()
  if (what === changedPresent) return { present: readEntry(reader) }
  if (what !== changedRemoved) throw new LayerProtocolError(`a change of kind ${what}`)
  const removed = reader.span()
  if (!isLayerPath(removed)) throw new LayerProtocolError('a removed path that is none')
  return { removed }
}

function readEntry(reader: LayerPayloadReader): LayerEntry {
  const kindNumber = reader.u8()
  const kind = entryKinds[kindNumber - 1]
  const mode = reader.u16()
  const uid = reader.u32()
  const gid = reader.u32()
  const sizeBytes = reader.count()
  const mtimeNs = reader.i64()
  const ctimeNs = reader.i64()
  const inode = reader.u64()
  const links = reader.u32()
  const path = reader.span()
  const target = reader.span()
  if (kind === undefined) throw new LayerProtocolError(`an entry of kind ${kindNumber}`)
  if (mode > 0o7777 || uid > idMax || gid > idMax) throw new LayerProtocolError('a mode or owner that cannot be')
  if (path.length === 0 ? kind !== 'directory' : !isLayerPath(path)) throw new LayerProtocolError('a path that is none')
  if (kind === 'symlink' ? !isTarget(target) : target.length > 0) throw new LayerProtocolError('a link target that cannot be')
  const attributes = readAttributes(reader)
  const entry = { path, kind, mode, uid, gid, stamp: { inode, sizeBytes, mtimeNs, ctimeNs }, links, attributes }
  return kind === 'symlink' ? { ...entry, target } : entry
}

function isTarget(target: Buffer): boolean {
  return target.length > 0 && target.length <= pathLimitBytes && !target.includes(0)
}

function readAttributes(reader: LayerPayloadReader): ExtendedAttribute[] {
  const attributes: ExtendedAttribute[] = []
  let total = 0
  let last = ''
  for (let left = reader.u16(); left > 0; left--) {
    const name = reader.bytes(reader.u8()).toString('latin1')
    const value = reader.bytes(reader.u32())
    total += name.length + value.length
    if (total > attributesLimitBytes) throw new LayerProtocolError('more than 64 KiB of attributes')
    if (!isKeptAttribute(name, value)) throw new LayerProtocolError(`the attribute ${JSON.stringify(name)}`)
    if (name <= last) throw new LayerProtocolError('attributes out of order')
    last = name
    attributes.push({ name, value })
  }
  return attributes
}

/** Checks that contents come file by file, in the order asked, and are bounded in number. */
export class ContentOrder {
  readonly #files: number
  #index = 0
  #holes = 0
  #bytes = 0

  constructor(files: number) {
    this.#files = files
  }

  get complete(): boolean {
    return this.#index === this.#files
  }

  data(payload: Buffer): LayerContent {
    const reader = new LayerPayloadReader(payload)
    const index = this.#current(reader)
    const bytes = reader.rest()
    this.#add(bytes.length)
    return { index, kind: 'data', bytes }
  }

  hole(payload: Buffer): LayerContent {
    const reader = new LayerPayloadReader(payload)
    const index = this.#current(reader)
    const lengthBytes = reader.count()
    reader.end()
    this.#add(lengthBytes)
    if (++this.#holes > extentsLimit) throw new LayerProtocolError('a file with too many holes')
    return { index, kind: 'hole', lengthBytes }
  }

  end(payload: Buffer): LayerContent {
    const reader = new LayerPayloadReader(payload)
    const index = this.#current(reader)
    const stamp: Stamp = { inode: reader.u64(), sizeBytes: reader.count(), mtimeNs: reader.i64(), ctimeNs: reader.i64() }
    reader.end()
    this.#next()
    return { index, kind: 'end', stamp }
  }

  missing(payload: Buffer): LayerContent {
    const reader = new LayerPayloadReader(payload)
    const index = this.#current(reader)
    reader.end()
    if (this.#bytes > 0) throw new LayerProtocolError('a file that is missing after all')
    this.#next()
    return { index, kind: 'missing' }
  }

  #current(reader: LayerPayloadReader): number {
    const index = reader.u32()
    if (this.complete || index !== this.#index) throw new LayerProtocolError(`content of file ${index} when it was the turn of ${this.#index}`)
    return index
  }

  #add(bytes: number) {
    if (bytes === 0) throw new LayerProtocolError('content that is empty')
    this.#bytes += bytes
    if (!Number.isSafeInteger(this.#bytes)) throw new LayerProtocolError('a file over 2^53 bytes')
  }

  #next() {
    this.#index++
    this.#holes = 0
    this.#bytes = 0
  }
}

export function decodeReady(payload: Buffer): number {
  const reader = new LayerPayloadReader(payload)
  const version = reader.u32()
  reader.end()
  return version
}

export function decodeError(payload: Buffer): MagsError {
  const reader = new LayerPayloadReader(payload)
  const errno = reader.u32()
  const step = reader.span()
  const path = reader.span()
  reader.end()
  if (errno === 0 || errno > 4095 || step.length > 255 || path.length > pathLimitBytes) throw new LayerProtocolError('an error that is none')
  return layerError(errno, step.toString('utf8'), path)
}
