import type { Writable } from 'node:stream'

/** Small frames are sent together, in pieces of about this size. */
const pieceBytes = 128 << 10
/** Bytes from this size on are not copied. */
const ownPieceBytes = 16 << 10

/** Collects frames into large writes, and waits while the other end takes nothing. What is added to a stream that is gone is dropped. */
export class LayerFrameSink {
  readonly #stream: Writable
  #piece = Buffer.allocUnsafe(pieceBytes)
  #used = 0

  constructor(stream: Writable) {
    this.#stream = stream
  }

  /** Undefined when there was room; otherwise resolves when there is again, or when the stream is gone. */
  add(bytes: Buffer): Promise<void> | undefined {
    if (bytes.length > pieceBytes - this.#used || bytes.length >= ownPieceBytes) this.#pass()
    if (bytes.length >= ownPieceBytes) this.#stream.write(bytes)
    else this.#used += bytes.copy(this.#piece, this.#used)
    return this.#room()
  }

  flush(): Promise<void> | undefined {
    this.#pass()
    return this.#room()
  }

  #pass() {
    if (this.#used === 0) return
    this.#stream.write(this.#piece.subarray(0, this.#used))
    this.#piece = Buffer.allocUnsafe(pieceBytes)
    this.#used = 0
  }

  #room(): Promise<void> | undefined {
    const stream = this.#stream
    if (!stream.writableNeedDrain || stream.destroyed) return undefined
    return new Promise((resolve) => {
      const go = () => {
        stream.off('drain', go)
        stream.off('close', go)
        resolve()
      }
      stream.once('drain', go)
      stream.once('close', go)
    })
  }
}
