import type { EventEmitter } from 'node:events'
import type { Connection, ServerChannel, Session } from 'ssh2'

/** What of ssh2 1.17 is used though it is not part of its interface; all of it in this file, each with the reason. */
interface ChannelInternals {
  readonly outgoing: { readonly packetSize: number; state: string }
  _chunk: unknown
  _chunkcb: unknown
  _chunkErr: unknown
  _chunkcbErr: unknown
  eof(): void
}

interface ProtocolInternals {
  /** Set while keys are exchanged. */
  readonly _kexinit: unknown
  readonly _packetRW: {
    readonly write: { readonly allocStartKEX: number; alloc(bytes: number, force: boolean): Buffer; finalize(packet: Buffer, force: boolean): Buffer }
  }
  readonly _cipher: { encrypt(packet: Buffer): void }
  channelOpenFail: (sender: number, reason: number, words: string) => void
  /** Of this connection alone. */
  readonly _handlers: { CHANNEL_REQUEST: (protocol: unknown, recipient: number, type: string, ...rest: readonly unknown[]) => void }
}

interface ConnectionInternals {
  readonly _protocol: ProtocolInternals
  /** What has the number: a session, another channel, or a function that waits for its opening to be answered. */
  readonly _chanMgr: { get(channel: number): unknown }
}

const connectionOf = (connection: Connection) => connection as unknown as ConnectionInternals
const protocolOf = (connection: Connection) => connectionOf(connection)._protocol
const internalsOf = (channel: ServerChannel) => channel as unknown as ChannelInternals

/** RFC 4254, 5.1. */
export const openFailure = { prohibited: 1, connectFailed: 2, resourceShortage: 4 } as const
/** RFC 4253, 11.1. */
export const disconnectReason = { protocolError: 2, serviceNotAvailable: 7, byApplication: 11, tooManyConnections: 12, noMoreAuthMethods: 14 } as const

/** While keys are exchanged ssh2 puts everything sent into a queue without a bound. */
export function isExchangingKeys(connection: Connection): boolean {
  return protocolOf(connection)._kexinit !== undefined
}

/** ssh2 leaves the rest of a finished write behind, and would send it again when the other stream of the channel waits for the window. To be called after every write. */
export function forgetSent(channel: ServerChannel): void {
  const internals = internalsOf(channel)
  internals._chunk = internals._chunkcb = internals._chunkErr = internals._chunkcbErr = undefined
}

/** The packets a client takes; with 0, which RFC 4254 does not forbid, ssh2 would send empty ones for ever. */
export function packetSizeOf(channel: ServerChannel): number {
  return internalsOf(channel).outgoing.packetSize
}

/** Ends one direction only; `end()` of a server's channel closes both. */
export function sendEof(channel: ServerChannel): void {
  internalsOf(channel).eof()
}

/** Refuses a channel with a reason and words; ssh2's `reject` has neither. */
export function refuseChannel(connection: Connection, reject: () => void, reason: number, words: string): void {
  const protocol = protocolOf(connection)
  const send = protocol.channelOpenFail
  protocol.channelOpenFail = (sender) => send.call(protocol, sender, reason, words)
  try {
    reject()
  } finally {
    protocol.channelOpenFail = send
  }
}

const endOfWrite = 'eow@openssh.com'

/** Once for every connection that is to hear of `onEndOfWrite`: ssh2 tells nobody of requests it does not know. */
export function hearEndOfWrite(connection: Connection): void {
  const handlers = protocolOf(connection)._handlers
  const known = handlers.CHANNEL_REQUEST
  handlers.CHANNEL_REQUEST = (protocol, recipient, type, ...rest) => {
    const channel = type === endOfWrite ? connectionOf(connection)._chanMgr.get(recipient) : undefined
    if (typeof channel === 'object' && channel !== null) (channel as EventEmitter).emit(endOfWrite)
    known(protocol, recipient, type, ...rest)
  }
}

/** The client reads no more of a session's output (OpenSSH's PROTOCOL, 2.1); it may come more than once. */
export function onEndOfWrite(session: Session, listener: () => void): void {
  const events: EventEmitter = session
  events.on(endOfWrite, listener)
}

/** RFC 4253, 6.1, has everybody take 35,000 bytes, and ssh2 takes no more; that is a command of OpenSSH's client with so many, because it never splits one. */
export function isPacketTooLong(error: Error): boolean {
  return error.message === 'Bad packet length'
}

/** SSH_MSG_DISCONNECT with words (RFC 4253, 11.1), which OpenSSH's client prints; ssh2 sends none. */
export function sendDisconnect(connection: Connection, reason: number, words: string): void {
  const text = Buffer.from(words)
  const { write } = protocolOf(connection)._packetRW
  const packet = write.alloc(1 + 4 + 4 + text.length + 4, true)
  let at = packet.writeUInt8(1, write.allocStartKEX)
  at = packet.writeUInt32BE(reason, at)
  at = packet.writeUInt32BE(text.length, at)
  at += text.copy(packet, at)
  packet.writeUInt32BE(0, at)
  protocolOf(connection)._cipher.encrypt(write.finalize(packet, true))
}
