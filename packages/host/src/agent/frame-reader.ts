import { AgentProtocolError } from './agent-protocol-error.ts'
import { headerBytes, receivedPayloadLimit } from './frame-constants.ts'

const nothing = Buffer.alloc(0)

/**
 * Cuts a byte stream into frames. `next` moves to the next whole frame and shows it in the fields; a payload is a view of the chunk it came in
 * (copied only when a frame spans chunks), good until the chunk is given up. Holds at most one partial frame besides the chunks pushed.
 */
export class FrameReader {
  type = 0
  stream = 0
  channel = 0
  payload: Buffer = nothing

  readonly #payloadLimit: number
  readonly #chunks: Buffer[] = []
  #chunk: Buffer = nothing
  #at = 0
  readonly #header = Buffer.alloc(headerBytes)
  #headerFilled = 0
  /** Set once the header of a frame that spans chunks is known. */
  #assembly: Buffer | undefined
  #assembled = 0

  constructor(payloadLimit: number = receivedPayloadLimit) {
    this.#payloadLimit = payloadLimit
  }

  push(chunk: Buffer) {
    if (this.#at === this.#chunk.length && this.#chunks.length === 0) {
      this.#chunk = chunk
      this.#at = 0
    } else if (chunk.length > 0) this.#chunks.push(chunk)
  }

  /** @throws AgentProtocolError on a header that no agent of ours writes. */
  next(): boolean {
    for (;;) {
      if (this.#headerFilled === 0 && this.#wholeFrameInChunk()) return true
      if (this.#at === this.#chunk.length) {
        const next = this.#chunks.shift()
        if (next === undefined) {
          this.#chunk = nothing
          this.#at = 0
          return false
        }
        this.#chunk = next
        this.#at = 0
        continue
      }
      if (this.#spanningFrame()) return true
    }
  }

  #wholeFrameInChunk(): boolean {
    const start = this.#at + headerBytes
    if (start > this.#chunk.length) return false
    const length = this.#readHeader(this.#chunk, this.#at)
    if (start + length > this.#chunk.length) return false
    this.payload = length === 0 ? nothing : this.#chunk.subarray(start, start + length)
    this.#at = start + length
    return true
  }

  /** Takes what the chunk has of a frame that ends in a later one. */
  #spanningFrame(): boolean {
    if (this.#assembly === undefined) {
      this.#headerFilled += this.#take(this.#header, this.#headerFilled, headerBytes)
      if (this.#headerFilled < headerBytes) return false
      this.#assembly = Buffer.allocUnsafe(this.#readHeader(this.#header, 0))
      this.#assembled = 0
    }
    this.#assembled += this.#take(this.#assembly, this.#assembled, this.#assembly.length)
    if (this.#assembled < this.#assembly.length) return false
    this.payload = this.#assembly
    this.#assembly = undefined
    this.#headerFilled = 0
    return true
  }

  #take(into: Buffer, filled: number, wanted: number): number {
    const count = Math.min(wanted - filled, this.#chunk.length - this.#at)
    this.#chunk.copy(into, filled, this.#at, this.#at + count)
    this.#at += count
    return count
  }

  #readHeader(from: Buffer, at: number): number {
    const length = from.readUInt32LE(at)
    if (length > this.#payloadLimit) throw new AgentProtocolError(`a frame of ${length} bytes, the limit is ${this.#payloadLimit}`)
    if (from.readUInt16LE(at + 6) !== 0) throw new AgentProtocolError('the reserved bytes of a header are not zero')
    this.type = from[at + 4] as number
    this.stream = from[at + 5] as number
    this.channel = from.readUInt32LE(at + 8)
    return length
  }
}
