import { constants } from 'node:os'
import { Duplex } from 'node:stream'
import { MagsError } from '@mags/protocol'
import type { AgentChannel, AgentWire } from './agent-channel.ts'
import { AgentProtocolError } from './agent-protocol-error.ts'
import type { AgentExit } from './connection.ts'
import { encodeClose, encodeDial } from './encode-frames.ts'
import { layerWorkerPort, windowDefault, windowMax } from './frame-constants.ts'
import { ReceivedStream } from './received-stream.ts'
import { errnoMessage, notListening } from './request-error.ts'
import { SentStream } from './sent-stream.ts'

/** A piece smaller than this is copied: queued as a view it would keep the whole chunk it came in. */
const copyBelowBytes = 16 << 10

/**
 * A TCP connection inside the sandbox, or one to a layer worker there, as a Duplex with half-close.
 *
 *     dialling ──OPENED──▶ open ──EOF from there / end() from here, in any order──▶ ended
 *        └──EXIT──▶ refused
 *     any ──destroy, connection lost──▶ destroyed
 */
export class ChannelDial extends Duplex implements AgentChannel {
  readonly connected: Promise<Duplex>
  readonly #channel: number
  readonly #port: number
  readonly #wire: AgentWire
  readonly #received: ReceivedStream
  readonly #sent: SentStream
  readonly #opening = Promise.withResolvers<Duplex>()
  #opened = false
  #endPushed = false
  #told = false
  #wantMore: (() => void) | undefined

  constructor(wire: AgentWire, channel: number, port: number) {
    super({ allowHalfOpen: true })
    // The sandbox can open and break the connection in one go: the error then comes before whoever dialled can listen, and must not end the process.
    this.on('error', () => undefined)
    this.connected = this.#opening.promise
    this.connected.catch(() => undefined)
    // A layer worker sends whole disks, a port may be one of hundreds.
    const windowBytes = port === layerWorkerPort ? windowMax : windowDefault
    this.#wire = wire
    this.#channel = channel
    this.#port = port
    this.#received = new ReceivedStream({
      wire,
      channel,
      name: 'stdout',
      windowBytes,
      start: 0,
      output: (_stream, _offset, bytes) => this.#take(bytes),
      onProgress: () => this.#pushEnd(),
      onFailed: (error) => this.destroy(error instanceof Error ? error : new Error(String(error))),
    })
    this.#sent = new SentStream(wire, channel)
    wire.send(encodeDial(channel, port, windowBytes))
  }

  onOpened() {
    if (this.#opened) throw new AgentProtocolError(`channel ${this.#channel} opens twice`)
    this.#opened = true
    this.#opening.resolve(this)
  }

  onExit(exit: AgentExit) {
    if (exit.kind !== 'not-started') return
    this.destroy(this.#failure(exit))
  }

  #failure({ code, message }: AgentExit): MagsError {
    if (this.#port === layerWorkerPort)
      return new MagsError('not_found', `the layer worker of the sandbox: ${message || errnoMessage(code)}`, { details: { errno: code } })
    if (code === constants.errno.ECONNREFUSED) return notListening(this.#port)
    return new MagsError('sandbox_failed', `port ${this.#port} of the sandbox: ${message || errnoMessage(code)}`, {
      details: { errno: code, port: this.#port },
    })
  }

  onData(stream: number, offset: number, bytes: Buffer) {
    if (stream !== 1 || !this.#opened) throw new AgentProtocolError(`channel ${this.#channel} is a dial and cannot send stream ${stream} now`)
    this.#received.data(offset, bytes)
  }

  onEof(stream: number, total: number, dropped: number) {
    // The second output stream of a dial has never anything in it; its end tells nothing.
    if (stream === 1) this.#received.end(total, dropped)
  }

  onAck(total: number) {
    this.#sent.acked(total)
  }

  onLost(error: Error) {
    this.#told = true
    this.destroy(error)
  }

  override _read() {
    const wantMore = this.#wantMore
    this.#wantMore = undefined
    wantMore?.()
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void) {
    this.#sent.write(bytes).then(() => done(), done)
  }

  override _final(done: (error?: Error | null) => void) {
    this.#sent.end()
    done()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void) {
    const reason = error ?? new MagsError('sandbox_failed', 'the connection into the sandbox was closed')
    this.#opening.reject(reason)
    this.#received.stop()
    this.#sent.fail(reason)
    if (!this.#told) this.#wire.send(encodeClose(this.#channel))
    this.#told = true
    this.#wire.forget(this.#channel)
    // Before it is open nobody listens for 'error'; the promise has told.
    done(this.#opened ? error : null)
  }

  #take(bytes: Buffer): Promise<undefined> | undefined {
    if (this.push(bytes.length < copyBelowBytes ? Buffer.from(bytes) : bytes)) return undefined
    return new Promise((resolve) => {
      this.#wantMore = () => resolve(undefined)
    })
  }

  #pushEnd() {
    if (this.#endPushed || !this.#received.ended || !this.#received.drained) return
    this.#endPushed = true
    this.push(null)
  }
}
