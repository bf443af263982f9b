import { MagsError } from '@mags/protocol'
import { isKeptAttribute } from './layer-attributes.ts'
import { ask, attributesLimitBytes, entryKinds, frameHeaderBytes, idMax, layerVersion, pathLimitBytes, payloadLimitBytes } from './layer-frame-constants.ts'
import { isLayerPath } from './layer-path.ts'
import type { LayerWrite } from './layer-session.ts'

/** Each frame the host sends, as bytes. What the worker would refuse is an error of the caller, told before anything is sent. */

export type NewLayerEntry = Extract<LayerWrite, { kind: 'entry' }>['entry']

/** Enough for a batch of paths in one frame. */
const pathsBytes = 64 << 10
const empty = Buffer.alloc(0)

function frame(type: number, payloadBytes: number): Buffer {
  if (payloadBytes > payloadLimitBytes) throw new MagsError('internal', `a frame of ${payloadBytes} bytes for the layer worker`)
  const bytes = Buffer.allocUnsafe(frameHeaderBytes + payloadBytes)
  bytes.writeUInt32LE(payloadBytes, 0)
  bytes[4] = type
  return bytes
}

export function encodeBare(type: number): Buffer {
  return frame(type, 0)
}

/** `folder` is the absolute path of what holds `u`; empty in a guest. `only`: the one name at the top that is looked at. */
export function encodeOpen(folder: string, only?: string): Buffer {
  const path = Buffer.from(folder)
  const name = only === undefined ? undefined : Buffer.from(only)
  if (name !== undefined && (!isLayerPath(name) || name.includes('/'))) throw new MagsError('internal', `${JSON.stringify(only)} is no name in a layer`)
  if (path.length > pathLimitBytes || path.includes(0)) throw new MagsError('internal', `${JSON.stringify(folder)} is no folder of a layer`)
  const bytes = frame(ask.open, 6 + path.length + (name === undefined ? 0 : 2 + name.length))
  bytes.writeUInt32LE(layerVersion, 5)
  const end = writeSpan(bytes, 9, path)
  if (name !== undefined) writeSpan(bytes, end, name)
  return bytes
}

/** As many frames as the paths need. */
export function* encodePaths(paths: readonly Buffer[]): Generator<Buffer> {
  for (let from = 0; from < paths.length; ) {
    let size = 0
    let to = from
    for (; to < paths.length && size < pathsBytes; to++) {
      const path = paths[to] as Buffer
      if (!isLayerPath(path)) throw new MagsError('internal', `${JSON.stringify(path.toString())} is no path of a file in a layer`)
      size += 2 + path.length
    }
    const bytes = frame(ask.read, size)
    let at = frameHeaderBytes
    for (; from < to; from++) at = writeSpan(bytes, at, paths[from] as Buffer)
    yield bytes
  }
}

export function encodeEntry(entry: NewLayerEntry): Buffer {
  checkEntry(entry)
  const target = entry.target ?? empty
  const linkTo = entry.linkTo ?? empty
  let attributesBytes = 0
  for (const { name, value } of entry.attributes) attributesBytes += 5 + name.length + value.length
  const bytes = frame(ask.entry, 27 + 6 + entry.path.length + target.length + linkTo.length + 2 + attributesBytes)
  bytes[5] = entryKinds.indexOf(entry.kind) + 1
  bytes.writeUInt16LE(entry.mode, 6)
  bytes.writeUInt32LE(entry.uid, 8)
  bytes.writeUInt32LE(entry.gid, 12)
  bytes.writeUInt32LE(entry.sizeBytes % 0x1_0000_0000, 16)
  bytes.writeUInt32LE(Math.floor(entry.sizeBytes / 0x1_0000_0000), 20)
  bytes.writeBigInt64LE(entry.mtimeNs, 24)
  let at = writeSpan(bytes, 32, entry.path)
  at = writeSpan(bytes, at, target)
  at = writeSpan(bytes, at, linkTo)
  at = bytes.writeUInt16LE(entry.attributes.length, at)
  for (const { name, value } of entry.attributes) {
    at = bytes.writeUInt8(name.length, at)
    at += bytes.write(name, at, 'latin1')
    at = bytes.writeUInt32LE(value.length, at)
    bytes.set(value, at)
    at += value.length
  }
  return bytes
}

/** Header and offset; `length` bytes of data follow on the wire. */
export function encodeDataHead(offset: number, length: number): Buffer {
  if (!Number.isSafeInteger(offset) || offset < 0) throw new MagsError('internal', `data at ${offset} of a file in a layer`)
  const bytes = Buffer.allocUnsafe(frameHeaderBytes + 8)
  bytes.writeUInt32LE(8 + length, 0)
  bytes[4] = ask.data
  bytes.writeUInt32LE(offset % 0x1_0000_0000, 5)
  bytes.writeUInt32LE(Math.floor(offset / 0x1_0000_0000), 9)
  return bytes
}

function writeSpan(bytes: Buffer, at: number, span: Buffer): number {
  const from = bytes.writeUInt16LE(span.length, at)
  bytes.set(span, from)
  return from + span.length
}

function checkEntry({ path, kind, mode, uid, gid, sizeBytes, target, linkTo, attributes }: NewLayerEntry) {
  const refuse = (why: string) => {
    throw new MagsError('internal', `${JSON.stringify(path.toString())} cannot be put into a layer: ${why}`)
  }
  if (path.length === 0 ? kind !== 'directory' : !isLayerPath(path)) refuse('its path')
  if (kind === 'device') refuse('it is a device')
  if (!(mode >= 0 && mode <= 0o7777)) refuse(`mode ${mode}`)
  if (!(uid >= 0 && uid <= idMax && gid >= 0 && gid <= idMax)) refuse(`owner ${uid}:${gid}`)
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0) refuse(`size ${sizeBytes}`)
  if (kind === 'symlink' ? !target || target.length === 0 || target.length > pathLimitBytes || target.includes(0) : target !== undefined) refuse('its target')
  if (linkTo !== undefined && (kind === 'directory' || !isLayerPath(linkTo))) refuse('what it is a link to')
  let total = 0
  for (const { name, value } of attributes) {
    if (!isKeptAttribute(name, value)) refuse(`attribute ${name}`)
    total += name.length + value.length
  }
  if (total > attributesLimitBytes) refuse('more than 64 KiB of attributes')
}
