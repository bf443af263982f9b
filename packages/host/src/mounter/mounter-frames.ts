import type { ProcessIdentity } from '../recover/process-identity.ts'

/** A request to the mounter; the layout on the wire is at the top of native/mounter/request.h. */
export type MounterOp =
  | { readonly op: 'probe' | 'unmount' | 'unmount-root'; readonly dir: string }
  | { readonly op: 'reset-upper'; readonly dir: string; readonly flags: number }
  | { readonly op: 'narrow-upper'; readonly dir: string; readonly folder: string; readonly lowerDirs: readonly string[] }
  | { readonly op: 'sweep-upper'; readonly dir: string; readonly most: number }
  | { readonly op: 'prepare'; readonly uidBase: number }
  | ({ readonly op: 'attach'; readonly process: ProcessIdentity } & RootFields)
  | ({ readonly op: 'mount-root'; readonly dir: string } & RootFields)
  | { readonly op: 'shift'; readonly uidBase: number; readonly imageDir: string; readonly dir: string }
  | { readonly op: 'mount-image'; readonly file: string; readonly dir: string; readonly flags: number }
  | { readonly op: 'seal'; readonly file: string }
  | { readonly op: 'unseal'; readonly fd: number }
  | { readonly op: 'kill'; readonly process: ProcessIdentity; readonly timeoutMs: number }
  | { readonly op: 'run'; readonly argv: readonly string[]; readonly logFile: string; readonly timeoutMs: number }

interface RootFields {
  readonly uidBase: number
  readonly flags: number
  readonly lowerDirs: readonly string[]
  readonly upperDir: string
}

export interface MounterReply {
  readonly id: number
  readonly errno: number
  readonly value: number
  readonly message: string
}

const opNumbers = {
  probe: 1,
  prepare: 2,
  attach: 3,
  'mount-image': 4,
  unmount: 5,
  'reset-upper': 6,
  seal: 7,
  unseal: 8,
  kill: 9,
  run: 10,
  'mount-root': 11,
  'unmount-root': 12,
  shift: 13,
  'narrow-upper': 14,
  'sweep-upper': 15,
} as const
const headerBytes = 4
const replyMinBytes = 18

export function encodeRequest(id: number, op: MounterOp): Buffer {
  const parts = [u32(id), Buffer.of(opNumbers[op.op]), ...fields(op)]
  return Buffer.concat([u32(parts.reduce((sum, part) => sum + part.length, 0)), ...parts])
}

function fields(op: MounterOp): Buffer[] {
  switch (op.op) {
    case 'probe':
    case 'unmount':
    case 'unmount-root':
      return [text(op.dir)]
    case 'reset-upper':
      return [text(op.dir), u32(op.flags)]
    case 'narrow-upper':
      return [text(op.folder), u16(op.lowerDirs.length), ...op.lowerDirs.map(text), text(op.dir)]
    case 'sweep-upper':
      return [text(op.dir), u32(op.most)]
    case 'prepare':
      return [u32(op.uidBase)]
    case 'attach':
      return [...processFields(op.process), ...rootFields(op)]
    case 'mount-root':
      return [text(op.dir), ...rootFields(op)]
    case 'shift':
      return [u32(op.uidBase), text(op.imageDir), text(op.dir)]
    case 'mount-image':
      return [text(op.file), text(op.dir), u32(op.flags)]
    case 'seal':
      return [text(op.file)]
    case 'unseal':
      return [u32(op.fd)]
    case 'kill':
      return [...processFields(op.process), u32(op.timeoutMs)]
    case 'run':
      return [u32(op.timeoutMs), text(op.logFile), u16(op.argv.length), ...op.argv.map(text)]
  }
}

/** Cuts replies out of the mounter's output, however it arrives. */
export class RepliesReader {
  #rest: Buffer = Buffer.alloc(0)

  push(bytes: Buffer): MounterReply[] {
    let rest = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes])
    const replies: MounterReply[] = []
    while (rest.length >= headerBytes) {
      const end = headerBytes + rest.readUInt32LE(0)
      if (rest.length < end) break
      if (end >= headerBytes + replyMinBytes) replies.push(decodeReply(rest.subarray(headerBytes, end)))
      rest = rest.subarray(end)
    }
    this.#rest = rest
    return replies
  }
}

function decodeReply(frame: Buffer): MounterReply {
  return {
    id: frame.readUInt32LE(0),
    errno: frame.readInt32LE(4),
    value: Number(frame.readBigUInt64LE(8)),
    message: frame.toString('utf8', replyMinBytes, replyMinBytes + frame.readUInt16LE(16)),
  }
}

function u16(value: number) {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16LE(value)
  return bytes
}

function u32(value: number) {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

function text(value: string) {
  const bytes = Buffer.from(value)
  return Buffer.concat([u16(bytes.length), bytes])
}

function rootFields({ uidBase, flags, lowerDirs, upperDir }: RootFields) {
  return [u32(uidBase), u32(flags), u16(lowerDirs.length), ...lowerDirs.map(text), text(upperDir)]
}

function processFields({ pid, startTicks }: ProcessIdentity) {
  const start = Buffer.alloc(8)
  start.writeBigUInt64LE(BigInt(startTicks))
  return [u32(pid), start]
}
