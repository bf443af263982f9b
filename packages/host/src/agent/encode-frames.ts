import { MagsError } from '@mags/protocol'
import type { AgentExecRequest, AgentFileRequest } from './connection.ts'
import {
  execBytesLimit,
  execFlag,
  execStringsLimit,
  fileOp,
  frameType,
  headerBytes,
  keepMode,
  protocolVersion,
  type RequestOp,
  sentPayloadLimit,
  windowDefault,
  windowMax,
  windowMin,
} from './frame-constants.ts'
import { finishHeader, PayloadWriter } from './payload-writer.ts'

/** Each frame the host sends, as bytes. Layouts: docs/agent-protocol.md. */

export function encodeHello(nonce: Uint8Array): Buffer {
  return new PayloadWriter().u32(protocolVersion).bytes(nonce).frame(frameType.hello, 0, 0)
}

/** The window both ends work with after the agent clamped what we asked for. */
export function clampWindow(windowBytes = windowDefault): number {
  return Math.min(windowMax, Math.max(windowMin, Math.trunc(windowBytes)))
}

/** @throws MagsError 'bad_request' or 'too_large' for what the agent would refuse. */
export function encodeExec(channel: number, request: AgentExecRequest): Buffer {
  const environment = Object.entries(request.env).map(([name, value]) => `${name}=${value}`)
  checkStrings(request.argv, environment, request.cwd ?? '')
  const script = typeof request.script === 'string' ? Buffer.from(request.script) : request.script
  const flags = (request.pty ? execFlag.pty : 0) | (request.stdin ? execFlag.stdin : 0) | (script ? execFlag.script : 0) | (request.init ? execFlag.init : 0)
  const writer = new PayloadWriter(512 + (script?.length ?? 0))
    .u32(flags)
    .u32(clampWindow(request.windowBytes))
    .u16(request.pty?.rows ?? 0)
    .u16(request.pty?.cols ?? 0)
  const limits = request.limits ?? []
  writer.u8(limits.length)
  for (const limit of limits) writer.u8(limit.resource).u64(limitValue(limit.soft)).u64(limitValue(limit.hard))
  writer.u32(request.argv.length)
  for (const argument of request.argv) writer.string(argument)
  writer.u32(environment.length)
  for (const variable of environment) writer.string(variable)
  writer.string(request.cwd ?? '')
  if (script) writer.blob(script)
  return checkPayload(writer.frame(frameType.exec, 0, channel))
}

export function encodeDial(channel: number, port: number, windowBytes: number): Buffer {
  return new PayloadWriter(8).u16(port).u32(windowBytes).frame(frameType.dial, 0, channel)
}

/** @throws MagsError 'bad_request' for a path the agent would refuse. */
export function encodeFile(channel: number, request: AgentFileRequest): Buffer {
  if (request.path.includes('\0')) throw new MagsError('bad_request', 'the path contains a NUL byte')
  const [first, second] = fileArguments(request)
  const writer = new PayloadWriter(64 + request.path.length).u32(clampWindow(request.windowBytes)).u8(fileOp[request.op])
  return checkPayload(writer.u64(first).u64(second).string(request.path).frame(frameType.file, 0, channel))
}

function fileArguments(request: AgentFileRequest): readonly [number, number] {
  switch (request.op) {
    case 'stat':
    case 'sftp':
      return [0, 0]
    case 'list':
      return [request.most, 0]
    case 'read':
      return [request.offset, request.most]
    case 'write':
      return [request.mode ?? keepMode, 0]
    case 'remove':
      return [request.recursive ? 1 : 0, 0]
  }
}

/** The header and offset of a DATA frame; `length` bytes of data follow it on the wire. */
export function encodeDataHead(channel: number, offset: number, length: number): Buffer {
  const head = Buffer.allocUnsafe(headerBytes + 8)
  finishHeader(head, frameType.data, 0, channel)
  head.writeUInt32LE(8 + length, 0)
  head.writeBigUInt64LE(BigInt(offset), headerBytes)
  return head
}

export function encodeEof(channel: number, total: number): Buffer {
  return new PayloadWriter(16).u64(total).u64(0).frame(frameType.eof, 0, channel)
}

export function encodeAck(channel: number, stream: number, taken: number): Buffer {
  const frame = Buffer.allocUnsafe(headerBytes + 8)
  frame.writeUInt32LE(taken % 0x1_0000_0000, headerBytes)
  frame.writeUInt32LE(Math.floor(taken / 0x1_0000_0000), headerBytes + 4)
  return finishHeader(frame, frameType.ack, stream, channel)
}

/** `everyProcess`: not the process group but every process of the sandbox except the agent. */
export function encodeSignal(channel: number, signal: number, everyProcess = false): Buffer {
  return new PayloadWriter(2)
    .u8(signal)
    .u8(everyProcess ? 1 : 0)
    .frame(frameType.signal, 0, channel)
}

export function encodeResize(channel: number, rows: number, cols: number): Buffer {
  return new PayloadWriter(4).u16(rows).u16(cols).frame(frameType.resize, 0, channel)
}

export function encodeDiscard(channel: number, stream: number): Buffer {
  return new PayloadWriter(0).frame(frameType.discard, stream, channel)
}

export function encodeClose(channel: number): Buffer {
  return new PayloadWriter(0).frame(frameType.close, 0, channel)
}

export function encodeRequest(number: number, op: RequestOp, write: (writer: PayloadWriter) => void): Buffer {
  const writer = new PayloadWriter().u8(op)
  write(writer)
  return checkPayload(writer.frame(frameType.request, 0, number))
}

/** Infinity is RLIM_INFINITY. */
function limitValue(value: number): bigint {
  return Number.isFinite(value) ? BigInt(Math.trunc(value)) : 0xffff_ffff_ffff_ffffn
}

function checkStrings(argv: readonly string[], environment: readonly string[], cwd: string) {
  if (argv.length === 0 || argv[0] === '') throw new MagsError('bad_request', 'the command is empty')
  if (argv.length + environment.length > execStringsLimit) {
    throw new MagsError('too_large', `the command and its environment have more than ${execStringsLimit} strings`)
  }
  let bytes = 0
  for (const text of [...argv, ...environment, cwd]) {
    if (text.includes('\0')) throw new MagsError('bad_request', 'the command, its environment or its directory contains a NUL byte')
    bytes += Buffer.byteLength(text) + 1
  }
  if (bytes > execBytesLimit)
    throw new MagsError('too_large', `the command and its environment are over ${execBytesLimit} bytes; hand large data over as a file`)
}

function checkPayload(frame: Buffer): Buffer {
  if (frame.length - headerBytes > sentPayloadLimit) {
    throw new MagsError('too_large', `${frame.length - headerBytes} bytes for the sandbox at once; the limit is ${sentPayloadLimit}`)
  }
  return frame
}
