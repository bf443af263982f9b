import { LayerProtocolError } from './layer-protocol-error.ts'

/** Reads the fields of one payload; every read is checked against its end. */
export class LayerPayloadReader {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  get left(): number {
    return this.#bytes.length - this.#at
  }

  u8(): number {
    return this.#bytes[this.#advance(1)] as number
  }

  u16(): number {
    return this.#bytes.readUInt16LE(this.#advance(2))
  }

  u32(): number {
    return this.#bytes.readUInt32LE(this.#advance(4))
  }

  u64(): bigint {
    return this.#bytes.readBigUInt64LE(this.#advance(8))
  }

  i64(): bigint {
    return this.#bytes.readBigInt64LE(this.#advance(8))
  }

  /** A count of bytes: more than 2^53 − 1 is never meant. */
  count(): number {
    const at = this.#advance(8)
    const high = this.#bytes.readUInt32LE(at + 4)
    if (high > 0x1f_ffff) throw new LayerProtocolError('a size over 2^53')
    return high * 0x1_0000_0000 + this.#bytes.readUInt32LE(at)
  }

  /** A view, not a copy. */
  bytes(length: number): Buffer {
    const at = this.#advance(length)
    return this.#bytes.subarray(at, at + length)
  }

  /** u16 length and bytes. */
  span(): Buffer {
    return this.bytes(this.u16())
  }

  rest(): Buffer {
    return this.bytes(this.left)
  }

  end() {
    if (this.left !== 0) throw new LayerProtocolError(`${this.left} bytes too many in a payload`)
  }

  #advance(length: number): number {
    const at = this.#at
    if (length > this.#bytes.length - at) throw new LayerProtocolError('a payload that ends early')
    this.#at = at + length
    return at
  }
}
