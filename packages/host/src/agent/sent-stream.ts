import type { AgentWire } from './agent-channel.ts'
import { AgentProtocolError } from './agent-protocol-error.ts'
import { encodeDataHead, encodeEof } from './encode-frames.ts'
import { stdinWindow } from './frame-constants.ts'

/** Small enough that other channels get a turn on the wire. */
const pieceBytes = 64 << 10

interface Pending {
  readonly bytes: Buffer
  readonly resolve: () => void
  readonly reject: (error: Error) => void
}

/**
 * Stream 0 of a channel: what we send, within its window.
 *
 *     open ──end──▶ ending ──all sent──▶ ended
 *     any ──fail──▶ failed
 */
export class SentStream {
  readonly #wire: AgentWire
  readonly #channel: number
  readonly #queue: Pending[] = []
  #state: 'open' | 'ending' | 'ended' | 'failed' = 'open'
  #failure: Error | undefined
  /** Bytes of the queue's first entry that have left. */
  #firstSent = 0
  #sent: number
  #acked: number

  constructor(wire: AgentWire, channel: number, start = 0) {
    this.#wire = wire
    this.#channel = channel
    this.#sent = start
    this.#acked = start
  }

  /** Settles when the last byte is within the window and on its way, not when the program read it. The bytes must not change afterwards. */
  write(bytes: Uint8Array): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    // Somebody who does not look must not bring the process down.
    promise.catch(() => undefined)
    if (this.#failure) reject(this.#failure)
    else if (this.#state !== 'open') reject(new Error('write after end of the standard input'))
    else {
      this.#queue.push({ bytes: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), resolve, reject })
      this.#pump()
    }
    return promise
  }

  end() {
    if (this.#state !== 'open') return
    this.#state = 'ending'
    this.#pump()
  }

  acked(total: number) {
    if (total < this.#acked || total > this.#sent) throw new AgentProtocolError(`${total} bytes of stdin acknowledged, ${this.#sent} were sent`)
    this.#acked = total
    if (this.#state !== 'failed') this.#pump()
  }

  /** Rejects what waits and all that comes. */
  fail(error: Error) {
    if (this.#state === 'failed') return
    this.#state = 'failed'
    this.#failure = error
    for (const pending of this.#queue.splice(0)) pending.reject(error)
  }

  #pump() {
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      const left = first.bytes.length - this.#firstSent
      const count = Math.min(left, pieceBytes, stdinWindow - (this.#sent - this.#acked))
      if (count === 0 && left > 0) return
      if (count > 0) {
        this.#wire.send(encodeDataHead(this.#channel, this.#sent, count), first.bytes.subarray(this.#firstSent, this.#firstSent + count))
        this.#sent += count
        this.#firstSent += count
      }
      if (count === left) {
        this.#queue.shift()
        this.#firstSent = 0
        first.resolve()
      }
    }
    if (this.#state === 'ending') {
      this.#state = 'ended'
      this.#wire.send(encodeEof(this.#channel, this.#sent))
    }
  }
}
