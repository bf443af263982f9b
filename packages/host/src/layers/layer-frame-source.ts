import type { Readable } from 'node:stream'
import { frameHeaderBytes, payloadLimitBytes } from './layer-frame-constants.ts'
import { LayerProtocolError } from './layer-protocol-error.ts'

export interface LayerFrame {
  readonly type: number
  readonly payload: Buffer
}

/** Cuts a stream into frames. Nothing is read ahead but what the stream itself buffers, so who does not ask holds the sender back. */
export class LayerFrameSource {
  readonly #chunks: AsyncIterator<Buffer>
  #held: Buffer[] = []
  #heldBytes = 0

  constructor(stream: Readable) {
    this.#chunks = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  }

  /** A frame that is there already. */
  tryNext(): LayerFrame | undefined {
    if (this.#heldBytes < frameHeaderBytes) return undefined
    const length = this.#front(frameHeaderBytes).readUInt32LE(0)
    if (length > payloadLimitBytes) throw new LayerProtocolError(`a frame of ${length} bytes`)
    const whole = frameHeaderBytes + length
    if (this.#heldBytes < whole) return undefined
    const first = this.#front(whole)
    this.#heldBytes -= whole
    if (first.length > whole) this.#held[0] = first.subarray(whole)
    else this.#held.shift()
    return { type: first[4] as number, payload: first.subarray(frameHeaderBytes, whole) }
  }

  /** Undefined at the end of the stream. @throws LayerProtocolError, or what broke the stream. */
  async next(): Promise<LayerFrame | undefined> {
    for (;;) {
      const frame = this.tryNext()
      if (frame !== undefined) return frame
      const { done, value } = await this.#chunks.next()
      if (done) return undefined
      this.#held.push(value)
      this.#heldBytes += value.length
    }
  }

  /** A buffer that begins with the next bytes and has at least so many, which must be there. */
  #front(count: number): Buffer {
    const first = this.#held[0] as Buffer
    if (first.length >= count) return first
    const joined = Buffer.concat(this.#held, this.#heldBytes)
    this.#held = [joined]
    return joined
  }
}
