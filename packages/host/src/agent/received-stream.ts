import type { AgentWire } from './agent-channel.ts'
import { AgentProtocolError } from './agent-protocol-error.ts'
import type { AgentOutput, AgentStream } from './connection.ts'
import { encodeAck, encodeDiscard } from './encode-frames.ts'

export interface ReceivedStreamOptions {
  readonly wire: AgentWire
  readonly channel: number
  readonly name: AgentStream
  readonly windowBytes: number
  /** Bytes acknowledged on an earlier connection. */
  readonly start: number
  /** Absent: parked until `resume`. */
  readonly output?: AgentOutput
  /** More was taken, or the end was reached. */
  readonly onProgress: () => void
  readonly onFailed: (error: unknown) => void
}

/**
 * One stream from the sandbox, checked, handed over piece by piece and acknowledged.
 *
 *     parked ──resume──▶ idle ──output returned a promise──▶ busy ──it resolved──▶ idle
 *                                                              ├─ 'discard' ──▶ discarding (all that comes is acknowledged)
 *                                                              └─ it rejected ─▶ stopped
 *     any ──stop──▶ stopped (what comes is dropped)
 *
 * What arrives while parked or busy waits in one buffer of at most a window and is handed over as one piece.
 */
export class ReceivedStream {
  /** Bytes that came, and bytes the output callback took; both count from the start of the stream. */
  received: number
  taken: number
  ended = false
  dropped = 0

  readonly #options: ReceivedStreamOptions
  readonly #number: number
  #state: 'parked' | 'idle' | 'busy' | 'discarding' | 'stopped'
  #output: AgentOutput | undefined
  /** Bytes before this were safe before the connection; they are skipped. */
  #safe = 0
  #acked: number
  #backlog: Buffer | undefined
  #backlogBytes = 0

  constructor(options: ReceivedStreamOptions) {
    this.#options = options
    this.#number = options.name === 'stdout' ? 1 : 2
    this.#output = options.output
    this.#state = options.output ? 'idle' : 'parked'
    this.received = options.start
    this.taken = options.start
    this.#acked = options.start
  }

  get drained(): boolean {
    return this.taken === this.received
  }

  resume(output: AgentOutput, safe: number) {
    this.#output = output
    this.#safe = safe
    this.#state = 'idle'
    this.#options.wire.parked(-this.#backlogBytes)
    this.#deliverBacklog()
  }

  data(offset: number, bytes: Buffer) {
    const { channel, name, windowBytes } = this.#options
    if (this.ended) throw new AgentProtocolError(`${name} of channel ${channel} goes on after its end`)
    if (offset !== this.received) throw new AgentProtocolError(`${name} of channel ${channel} goes on at ${offset}, not at ${this.received}`)
    if (offset + bytes.length - this.#acked > windowBytes) throw new AgentProtocolError(`${name} of channel ${channel} is past its window`)
    this.received += bytes.length
    if (bytes.length === 0) return
    if (this.#state === 'idle') this.#deliver(bytes)
    else if (this.#state === 'discarding') this.#took(bytes.length)
    else if (this.#state !== 'stopped') this.#hold(bytes)
  }

  /** `total` counts what came as DATA, without what was dropped on request. */
  end(total: number, dropped: number) {
    const { channel, name } = this.#options
    if (this.ended) throw new AgentProtocolError(`${name} of channel ${channel} ends twice`)
    if (total !== this.received) {
      throw new AgentProtocolError(`${name} of channel ${channel} ends at ${total}, ${this.received} bytes came`)
    }
    this.ended = true
    this.dropped = dropped
    this.#options.onProgress()
  }

  /** The ACK to send now, if one is due. */
  takeAck(): Buffer | undefined {
    if (this.#acked === this.taken || this.#state === 'stopped') return undefined
    this.#acked = this.taken
    return encodeAck(this.#options.channel, this.#number, this.taken)
  }

  stop() {
    if (this.#state === 'parked') this.#options.wire.parked(-this.#backlogBytes)
    this.#state = 'stopped'
    this.#backlog = undefined
    this.#backlogBytes = 0
  }

  #deliver(piece: Buffer) {
    let bytes = piece
    if (this.taken < this.#safe) {
      const skipped = Math.min(this.#safe - this.taken, bytes.length)
      this.#took(skipped)
      if (skipped === bytes.length) return
      bytes = bytes.subarray(skipped)
    }
    let taking: Promise<undefined | 'discard'> | undefined
    try {
      taking = this.#output?.(this.#options.name, this.taken, bytes)
    } catch (error) {
      this.#fail(error)
      return
    }
    if (taking === undefined) {
      this.#took(bytes.length)
      return
    }
    if (this.#state === 'idle') this.#state = 'busy'
    const count = bytes.length
    taking.then(
      (verdict) => this.#settled(count, verdict),
      (error: unknown) => this.#fail(error),
    )
  }

  #settled(count: number, verdict: undefined | 'discard') {
    if (this.#state !== 'busy') return
    if (verdict === 'discard') {
      this.#state = 'discarding'
      this.#backlog = undefined
      this.#backlogBytes = 0
      this.#options.wire.send(encodeDiscard(this.#options.channel, this.#number))
      this.#took(this.received - this.taken)
      return
    }
    this.#state = 'idle'
    this.#took(count)
    if (this.#state === 'idle') this.#deliverBacklog()
  }

  #took(count: number) {
    if (this.#state === 'stopped') return
    this.taken += count
    this.#options.wire.acknowledge(this, this.taken - this.#acked >= this.#options.windowBytes / 2)
    this.#options.onProgress()
  }

  #fail(error: unknown) {
    if (this.#state === 'stopped') return
    this.stop()
    this.#options.onFailed(error)
  }

  #hold(bytes: Buffer) {
    const end = this.#backlogBytes + bytes.length
    if (this.#backlog === undefined || end > this.#backlog.length) {
      const larger = Buffer.allocUnsafe(Math.min(Math.max(end, 2 * (this.#backlog?.length ?? 2048)), this.#options.windowBytes))
      this.#backlog?.copy(larger, 0, 0, this.#backlogBytes)
      this.#backlog = larger
    }
    bytes.copy(this.#backlog, this.#backlogBytes)
    this.#backlogBytes = end
    if (this.#state === 'parked') this.#options.wire.parked(bytes.length)
  }

  #deliverBacklog() {
    const backlog = this.#backlog?.subarray(0, this.#backlogBytes)
    this.#backlog = undefined
    this.#backlogBytes = 0
    if (backlog && backlog.length > 0) this.#deliver(backlog)
  }
}
