import type { Duplex } from 'node:stream'
import { MagsError } from '@mags/protocol'
import type { AgentChannel, AgentWire } from './agent-channel.ts'
import { ChannelDial } from './agent-dial.ts'
import { ChannelExec } from './agent-exec.ts'
import { AgentProtocolError } from './agent-protocol-error.ts'
import { AgentRequests } from './agent-requests.ts'
import type { AgentConnection, AgentExec, AgentExecRequest, AgentFileRequest, AgentIdentity, AgentLiveChannel, AgentOutput, AgentStats } from './connection.ts'
import { channelMax, decodeAck, decodeEof, decodeExit, decodeOpened, decodeStats, type Hello, type HelloChannel } from './decode-frames.ts'
import { clampWindow, encodeClose, encodeExec, encodeFile } from './encode-frames.ts'
import { uuidBytes, writeIdentity } from './encode-identity.ts'
import { frameType, layerWorkerPort, requestOp } from './frame-constants.ts'
import { FrameReader } from './frame-reader.ts'
import { FrameSender } from './frame-sender.ts'
import type { PayloadReader } from './payload-reader.ts'
import type { ReceivedStream } from './received-stream.ts'

/** Freezing writes all out that is in the machine's memory. The process that does it can be stopped by the machine's root. */
const diskTimeoutMs = 180_000

/** Longest stretch of parsing before the event loop gets a turn, and how often the clock is read. */
const stretchMs = 2
const framesPerLook = 64
/** Output of channels that nobody resumed yet; beyond, nothing more is read until somebody does. */
const parkedLimitBytes = 8 << 20

/**
 * The host's end of the agent protocol, after the handshake of `connectAgent`.
 *
 *     open ──close()──▶ closed (`closed` resolves with undefined)
 *       ├──a frame that cannot be──▶ closed (AgentProtocolError)
 *       └──stream ended or broke──▶ ending ──what had been read is parsed──▶ closed (MagsError)
 *
 * While open it also rests: `resting` between two stretches of parsing, `full` while too much output waits for `resumeExec`; the stream is then paused.
 */
export class StreamAgentConnection implements AgentConnection {
  readonly liveChannels: readonly AgentLiveChannel[]
  readonly boots: boolean
  readonly takesIpv6: boolean
  readonly closed: Promise<Error | undefined>

  readonly #stream: Duplex
  readonly #sender: FrameSender
  readonly #requests: AgentRequests
  readonly #reader = new FrameReader()
  readonly #channels = new Map<number, AgentChannel>()
  readonly #found: ReadonlyMap<number, HelloChannel>
  readonly #wire: AgentWire
  readonly #firstChannel: number
  #nextChannel: number
  readonly #closing = Promise.withResolvers<Error | undefined>()
  #over: { error: Error; byUs: boolean } | undefined
  #ending: Error | undefined
  #resting = false
  #parkedBytes = 0

  /** Takes the stream over from the handshake; `rest` is what came after the HELLO. */
  constructor(stream: Duplex, hello: Hello, rest: Buffer) {
    this.#stream = stream
    this.boots = hello.boots
    this.takesIpv6 = hello.takesIpv6
    this.closed = this.#closing.promise
    this.#sender = new FrameSender(stream)
    this.#requests = new AgentRequests((frame) => this.#sender.send(frame))
    this.#wire = {
      send: (...frames) => {
        if (!this.#over) for (const frame of frames) this.#sender.send(frame)
      },
      acknowledge: (received: ReceivedStream, urgent) => this.#sender.acknowledge(received, urgent),
      parked: (bytes) => this.#parked(bytes),
      forget: (channel) => this.#channels.delete(channel),
    }
    this.#found = new Map(hello.channels.map((found) => [found.channel, found]))
    this.#nextChannel = 1 + Math.max(0, ...this.#found.keys())
    this.#firstChannel = this.#nextChannel
    for (const found of hello.channels) {
      // Whoever dialled, read or wrote is gone with the last connection.
      if (found.kind !== 'exec') this.#sender.send(encodeClose(found.channel))
      else this.#channels.set(found.channel, new ChannelExec({ wire: this.#wire, channel: found.channel, resumed: found }))
    }
    this.liveChannels = hello.channels.flatMap(({ channel, kind, exited, pid }) => (kind === 'exec' ? [{ channel, kind, exited, pid }] : []))
    stream.on('data', (chunk: Buffer) => {
      this.#reader.push(chunk)
      this.#parse()
    })
    stream.on('end', () => this.#ended(new MagsError('sandbox_failed', 'the sandbox closed its connection')))
    stream.on('error', (error) => this.#ended(new MagsError('sandbox_failed', `the connection to the sandbox broke: ${error.message}`, { cause: error })))
    stream.on('close', () => this.#ended(new MagsError('sandbox_failed', 'the connection to the sandbox is gone')))
    this.#reader.push(rest)
    this.#parse()
    this.#flow()
  }

  /** @throws MagsError 'bad_request' or 'too_large' when the request itself cannot be sent. */
  exec(request: AgentExecRequest, output: AgentOutput): AgentExec {
    return this.#start((channel) => encodeExec(channel, request), request.windowBytes, output)
  }

  file(request: AgentFileRequest, output: AgentOutput): AgentExec {
    return this.#start((channel) => encodeFile(channel, request), request.windowBytes, output)
  }

  /** A program or what is like one: output, input and an exit. */
  #start(encode: (channel: number) => Buffer, windowBytes: number | undefined, output: AgentOutput): AgentExec {
    const channel = this.#nextChannel
    const frame = encode(channel)
    const exec = new ChannelExec({
      wire: this.#wire,
      channel: this.#newChannel(),
      windowBytes: clampWindow(windowBytes),
      output,
    })
    if (this.#over) exec.onLost(this.#over.error, true)
    else {
      this.#channels.set(channel, exec)
      this.#sender.send(frame)
    }
    return exec
  }

  /**
   * `safe` counts the bytes of each stream that need not come again. Should less be safe than was acknowledged once, the first offset handed over shows the gap.
   * @throws MagsError 'not_found' when the channel is not among `liveChannels` or was resumed or closed before, 'sandbox_failed' when the sandbox never sent as much.
   */
  resumeExec(channel: number, safe: { stdout: number; stderr: number }, output: AgentOutput): AgentExec {
    const exec = this.#channels.get(channel)
    const found = this.#found.get(channel)
    if (!found || !(exec instanceof ChannelExec) || !exec.parked) throw new MagsError('not_found', `no program waits on channel ${channel} of the sandbox`)
    if (safe.stdout > found.stdout.sent || safe.stderr > found.stderr.sent) {
      throw new MagsError('sandbox_failed', `channel ${channel} of the sandbox has sent less than what is already stored of it`)
    }
    exec.resume(safe, output)
    return exec
  }

  dial(port: number): Promise<Duplex> {
    if (!Number.isInteger(port) || port < 1 || port > 65_535) return Promise.reject(new MagsError('bad_request', `${port} is not a port`))
    return this.#dial(port)
  }

  dialLayerWorker(): Promise<Duplex> {
    return this.#dial(layerWorkerPort)
  }

  #dial(port: number): Promise<Duplex> {
    if (this.#over) return Promise.reject(this.#over.error)
    const dial = new ChannelDial(this.#wire, this.#newChannel(), port)
    this.#channels.set(this.#nextChannel - 1, dial)
    return dial.connected
  }

  ping(timeoutMs?: number): Promise<void> {
    const decode = (reader: PayloadReader) => void reader.rest()
    return this.#requests.call({ op: requestOp.ping, what: 'ping', decode, ...(timeoutMs === undefined ? {} : { timeoutMs }) })
  }

  identity(identity: AgentIdentity): Promise<void> {
    if (identity.network6 !== undefined && !this.takesIpv6) {
      const words = 'this virtual machine was made by an earlier release, which knows no IPv6 addresses'
      return Promise.reject(new MagsError('not_available', words))
    }
    return this.#requests.call({ op: requestOp.identity, what: 'set the identity', write: (writer) => writeIdentity(writer, identity), decode: nothing })
  }

  attachDisk(serial: string, fileSystemUuid: string, scope?: string): Promise<void> {
    return this.#requests.call({
      op: requestOp.attach,
      what: `attach disk ${serial}`,
      write: (writer) => {
        writer.string(serial).bytes(uuidBytes(fileSystemUuid))
        if (scope !== undefined) writer.string(scope)
      },
      decode: nothing,
    })
  }

  detachDisk(): Promise<void> {
    return this.#requests.call({ op: requestOp.detach, what: 'detach the disk', decode: nothing })
  }

  freezeDisk(): Promise<void> {
    return this.#requests.call({ op: requestOp.freeze, what: 'freeze the disk', decode: nothing, timeoutMs: diskTimeoutMs })
  }

  thawDisk(): Promise<void> {
    return this.#requests.call({ op: requestOp.thaw, what: 'thaw the disk', decode: nothing, timeoutMs: diskTimeoutMs })
  }

  stats(): Promise<AgentStats> {
    return this.#requests.call({ op: requestOp.stats, what: 'read the statistics', decode: decodeStats })
  }

  close() {
    if (this.#over) return
    this.#sender.finish()
    this.#finish(new MagsError('sandbox_failed', 'the connection to the sandbox was closed'), true)
  }

  #newChannel(): number {
    if (this.#nextChannel > channelMax) throw new MagsError('sandbox_failed', 'the channel numbers of this connection are used up; connect again')
    return this.#nextChannel++
  }

  #parse() {
    if (this.#resting || this.#over) return
    const until = performance.now() + stretchMs
    const reader = this.#reader
    try {
      for (let frames = 1; this.#parkedBytes <= parkedLimitBytes && reader.next(); frames++) {
        this.#dispatch(reader)
        if (this.#over) return
        if (frames % framesPerLook === 0 && performance.now() > until) {
          this.#rest()
          return
        }
      }
    } catch (error) {
      this.#finish(error instanceof Error ? error : new Error(String(error)), false)
      return
    }
    if (this.#ending && this.#parkedBytes <= parkedLimitBytes) this.#finish(this.#ending, false)
  }

  #rest() {
    this.#resting = true
    this.#flow()
    setImmediate(() => {
      this.#resting = false
      this.#parse()
      this.#flow()
    })
  }

  #flow() {
    if (this.#resting || this.#parkedBytes > parkedLimitBytes) this.#stream.pause()
    else this.#stream.resume()
  }

  #parked(bytes: number) {
    const full = this.#parkedBytes > parkedLimitBytes
    this.#parkedBytes += bytes
    if (full === this.#parkedBytes > parkedLimitBytes) return
    this.#flow()
    if (full && !this.#over) setImmediate(() => this.#parse())
  }

  #dispatch(frame: FrameReader) {
    const { type, stream, channel: number, payload } = frame
    if (type === frameType.reply) {
      this.#requests.onReply(number, payload)
      return
    }
    const channel = this.#channels.get(number)
    if (channel === undefined && !this.#wasOurs(number)) throw new AgentProtocolError(`a frame of type ${type} for channel ${number}, which is not open`)
    if (type === frameType.data) {
      checkOutputStream(stream, type)
      if (payload.length < 8) throw new AgentProtocolError('a DATA frame without an offset')
      const offset = payload.readUInt32LE(0) + payload.readUInt32LE(4) * 0x1_0000_0000
      channel?.onData(stream, offset, payload.subarray(8))
    } else if (type === frameType.ack) {
      if (stream !== 0) throw new AgentProtocolError(`an ACK of stream ${stream}`)
      channel?.onAck(decodeAck(payload))
    } else if (type === frameType.eof) {
      checkOutputStream(stream, type)
      const { total, dropped } = decodeEof(payload)
      channel?.onEof(stream, total, dropped)
    } else if (type === frameType.opened) channel?.onOpened(decodeOpened(payload))
    else if (type === frameType.exit) channel?.onExit(decodeExit(payload))
    else throw new AgentProtocolError(`a frame of type ${type}`)
  }

  /** Frames for a channel we closed may still have been on their way. */
  #wasOurs(channel: number): boolean {
    return (channel >= this.#firstChannel && channel < this.#nextChannel) || this.#found.has(channel)
  }

  /** The stream is at its end; frames read before it still count. */
  #ended(error: Error) {
    if (this.#over || this.#ending) return
    this.#ending = error
    if (this.#parkedBytes > parkedLimitBytes) this.#finish(error, false)
    else this.#parse()
  }

  #finish(error: Error, byUs: boolean) {
    if (this.#over) return
    this.#over = { error, byUs }
    this.#stream.destroy()
    this.#requests.onLost(error)
    for (const channel of [...this.#channels.values()]) channel.onLost(error, byUs)
    this.#closing.resolve(byUs ? undefined : error)
  }
}

function checkOutputStream(stream: number, type: number) {
  if (stream !== 1 && stream !== 2) throw new AgentProtocolError(`a frame of type ${type} on stream ${stream}`)
}

function nothing() {
  return undefined
}
