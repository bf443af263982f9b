import type { Duplex } from 'node:stream'
import type { ReceivedStream } from './received-stream.ts'

/** Up to here frames are joined into one buffer; beyond, copying costs more than a vector write. */
const joinLimit = 32 << 10

/**
 * Collects frames and writes once per tick. Acknowledgements wait for the next write or the end of the event loop's turn, and for the stream to
 * drain: what the sandbox makes us send is bounded although it may never read.
 */
export class FrameSender {
  readonly #stream: Duplex
  #frames: Buffer[] = []
  #bytes = 0
  readonly #due = new Set<ReceivedStream>()
  #flushAtTick = false
  #flushAtTurn = false
  #stopped = false

  constructor(stream: Duplex) {
    this.#stream = stream
    stream.on('drain', () => this.#flush())
  }

  send(frame: Buffer) {
    this.#frames.push(frame)
    this.#bytes += frame.length
    if (!this.#flushAtTick) {
      this.#flushAtTick = true
      process.nextTick(this.#flush)
    }
  }

  acknowledge(stream: ReceivedStream, urgent: boolean) {
    this.#due.add(stream)
    if (urgent && !this.#flushAtTick) {
      this.#flushAtTick = true
      process.nextTick(this.#flush)
    } else if (!urgent && !this.#flushAtTurn) {
      this.#flushAtTurn = true
      setImmediate(this.#flush)
    }
  }

  /** Writes what waits, at once. */
  finish() {
    this.#flush()
    this.#stopped = true
  }

  readonly #flush = () => {
    this.#flushAtTick = false
    this.#flushAtTurn = false
    if (this.#stopped || this.#stream.destroyed) return
    if (this.#due.size > 0 && !this.#stream.writableNeedDrain) {
      for (const stream of this.#due) {
        const ack = stream.takeAck()
        if (ack) {
          this.#frames.push(ack)
          this.#bytes += ack.length
        }
      }
      this.#due.clear()
    }
    const frames = this.#frames
    if (frames.length === 0) return
    const bytes = this.#bytes
    this.#frames = []
    this.#bytes = 0
    const [first] = frames
    if (frames.length === 1 && first) this.#stream.write(first)
    else if (bytes <= joinLimit) this.#stream.write(Buffer.concat(frames, bytes))
    else {
      this.#stream.cork()
      for (const frame of frames) this.#stream.write(frame)
      this.#stream.uncork()
    }
  }
}
