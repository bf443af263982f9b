import { headerBytes } from './frame-constants.ts'

/** Builds one frame: leaves room for the header, grows as it must, writes the header at the end. */
export class PayloadWriter {
  #buffer: Buffer
  #at = headerBytes

  constructor(expectedBytes = 64) {
    this.#buffer = Buffer.allocUnsafe(headerBytes + expectedBytes)
  }

  u8(value: number): this {
    const at = this.#grow(1)
    this.#buffer[at] = value
    return this
  }

  u16(value: number): this {
    const at = this.#grow(2)
    this.#buffer.writeUInt16LE(value, at)
    return this
  }

  u32(value: number): this {
    const at = this.#grow(4)
    this.#buffer.writeUInt32LE(value, at)
    return this
  }

  u64(value: number | bigint): this {
    const at = this.#grow(8)
    this.#buffer.writeBigUInt64LE(BigInt(value), at)
    return this
  }

  bytes(bytes: Uint8Array): this {
    const at = this.#grow(bytes.length)
    this.#buffer.set(bytes, at)
    return this
  }

  blob(bytes: Uint8Array): this {
    return this.u32(bytes.length).bytes(bytes)
  }

  string(text: string): this {
    const length = Buffer.byteLength(text)
    this.u32(length)
    const at = this.#grow(length)
    this.#buffer.write(text, at, length, 'utf8')
    return this
  }

  frame(type: number, stream: number, channel: number): Buffer {
    return finishHeader(this.#buffer.subarray(0, this.#at), type, stream, channel)
  }

  #grow(count: number): number {
    const at = this.#at
    const end = at + count
    if (end > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(end, this.#buffer.length * 2))
      this.#buffer.copy(larger, 0, 0, at)
      this.#buffer = larger
    }
    this.#at = end
    return at
  }
}

/** Fills in the header of a frame whose payload is in place. */
export function finishHeader(frame: Buffer, type: number, stream: number, channel: number): Buffer {
  frame.writeUInt32LE(frame.length - headerBytes, 0)
  frame[4] = type
  frame[5] = stream
  frame.writeUInt16LE(0, 6)
  frame.writeUInt32LE(channel, 8)
  return frame
}
