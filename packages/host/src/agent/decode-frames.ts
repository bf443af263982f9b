import { AgentProtocolError } from './agent-protocol-error.ts'
import type { AgentExit, AgentFileEntry, AgentStats } from './connection.ts'
import { channelLimit, feature, nonceBytes, protocolVersion, windowMax } from './frame-constants.ts'
import { PayloadReader } from './payload-reader.ts'

/** Each payload the agent sends, checked. All throw AgentProtocolError. */

export interface HelloStream {
  readonly sent: number
  readonly acked: number
  readonly eof: boolean
}

export interface HelloChannel {
  readonly channel: number
  readonly kind: 'exec' | 'dial' | 'file'
  readonly exited: boolean
  readonly pid: number
  /** Bytes of stdin taken. */
  readonly received: number
  readonly stdout: HelloStream
  readonly stderr: HelloStream
}

export interface Hello {
  readonly version: number
  readonly nonce: Buffer
  readonly mode: 'container' | 'vm'
  readonly channels: readonly HelloChannel[]
  /** It can start an image's init. */
  readonly boots: boolean
  /** It can give its machine an IPv6 address. */
  readonly takesIpv6: boolean
}

/** Numbers over this were never ours: a connection counts up from 1. */
export const channelMax = 0x7fff_ffff

export function decodeHello(payload: Buffer): Hello {
  const reader = new PayloadReader(payload)
  const version = reader.u32()
  if (version !== protocolVersion) throw new AgentProtocolError(`version ${version}, this host speaks ${protocolVersion}`)
  const nonce = reader.bytes(nonceBytes)
  const mode = choice(reader.u8(), ['container', 'vm'] as const)
  const count = reader.u32()
  if (count > channelLimit) throw new AgentProtocolError(`${count} live channels`)
  const channels: HelloChannel[] = []
  const seen = new Set<number>()
  for (let i = 0; i < count; i++) {
    const channel = reader.u32()
    if (channel === 0 || channel > channelMax || seen.has(channel)) throw new AgentProtocolError(`live channel ${channel}`)
    seen.add(channel)
    const kind = choice(reader.u8(), ['exec', 'dial', 'file'] as const)
    const exited = flag(reader.u8())
    reader.u8()
    reader.i32()
    const pid = reader.u32()
    channels.push({ channel, kind, exited, pid, received: reader.count(), stdout: helloStream(reader), stderr: helloStream(reader) })
  }
  // Agents of earlier releases, in sandboxes that outlived them, end here.
  const features = reader.left > 0 ? reader.u32() : 0
  reader.end()
  return { version, nonce, mode, channels, boots: (features & feature.init) !== 0, takesIpv6: (features & feature.ipv6) !== 0 }
}

function helloStream(reader: PayloadReader): HelloStream {
  const sent = reader.count()
  const acked = reader.count()
  if (acked > sent || sent - acked > windowMax) throw new AgentProtocolError(`${acked} of ${sent} bytes acknowledged`)
  return { sent, acked, eof: flag(reader.u8()) }
}

export function decodeExit(payload: Buffer): AgentExit {
  const reader = new PayloadReader(payload)
  const kind = choice(reader.u8(), ['exited', 'signalled', 'not-started', 'rebooted', 'powered-off'] as const)
  const code = reader.i32()
  const userCpuMs = reader.count() / 1000
  const systemCpuMs = reader.count() / 1000
  const maxRssKb = reader.count()
  const message = reader.string()
  reader.end()
  return { kind, code, userCpuMs, systemCpuMs, maxRssKb, message }
}

export function decodeOpened(payload: Buffer): number {
  const reader = new PayloadReader(payload)
  const pid = reader.u32()
  reader.end()
  return pid
}

export function decodeAck(payload: Buffer): number {
  const reader = new PayloadReader(payload)
  const taken = reader.count()
  reader.end()
  return taken
}

export function decodeEof(payload: Buffer): { total: number; dropped: number } {
  const reader = new PayloadReader(payload)
  const eof = { total: reader.count(), dropped: reader.count() }
  reader.end()
  return eof
}

/** The errno, and a reader that stands at the op's result. */
export function decodeReply(payload: Buffer): { errno: number; result: PayloadReader } {
  const result = new PayloadReader(payload)
  const errno = result.i32()
  if (errno < 0 || errno > 4095) throw new AgentProtocolError(`errno ${errno}`)
  return { errno, result }
}

export function decodeStats(reader: PayloadReader): AgentStats {
  return {
    memoryTotalBytes: reader.count(),
    memoryAvailableBytes: reader.count(),
    diskTotalBytes: reader.count(),
    diskAvailableBytes: reader.count(),
    processes: reader.u32(),
  }
}

const entryTypes: Readonly<Record<string, AgentFileEntry['type']>> = {
  f: 'file',
  d: 'directory',
  l: 'symlink',
  p: 'fifo',
  s: 'socket',
  c: 'char-device',
  b: 'block-device',
}

export function decodeEntry(reader: PayloadReader): AgentFileEntry {
  const name = reader.string()
  const type = entryTypes[String.fromCharCode(reader.u8())]
  if (type === undefined) throw new AgentProtocolError('a file of an unknown type')
  return { name, type, mode: reader.u32(), size: reader.count(), mtimeNs: reader.i64() }
}

function flag(value: number): boolean {
  if (value > 1) throw new AgentProtocolError(`a flag of ${value}`)
  return value === 1
}

function choice<T>(value: number, choices: readonly T[]): T {
  const chosen = choices[value]
  if (chosen === undefined) throw new AgentProtocolError(`a kind of ${value}`)
  return chosen
}
