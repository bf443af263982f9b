/** Reads the little-endian fields of one payload of hostile origin; every read is checked against its end, and what is wrong becomes the protocol's own error. */
export class PayloadReader {
  readonly #bytes: Buffer
  readonly #fault: (words: string) => Error
  #at = 0

  constructor(bytes: Buffer, fault: (words: string) => Error) {
    this.#bytes = bytes
    this.#fault = fault
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

  i32(): number {
    return this.#bytes.readInt32LE(this.#advance(4))
  }

  u64(): bigint {
    return this.#bytes.readBigUInt64LE(this.#advance(8))
  }

  i64(): bigint {
    return this.#bytes.readBigInt64LE(this.#advance(8))
  }

  /** A u64 that counts bytes or the like: more than 2^53 − 1 is never meant. */
  count(): number {
    const low = this.u32()
    const high = this.u32()
    if (high > 0x1f_ffff) throw this.#fault('a count over 2^53')
    return high * 0x1_0000_0000 + low
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

  /** u32 length and bytes. */
  blob(): Buffer {
    return this.bytes(this.u32())
  }

  /** A blob of text; bytes that are not UTF-8 become U+FFFD. */
  string(): string {
    return this.blob().toString('utf8')
  }

  /** All that is left. */
  rest(): Buffer {
    return this.bytes(this.left)
  }

  /** To be called after the last field. */
  end() {
    if (this.left !== 0) throw this.#fault(`${this.left} bytes too many in a payload`)
  }

  #advance(length: number): number {
    const at = this.#at
    if (length > this.#bytes.length - at) throw this.#fault('a payload that ends early')
    this.#at = at + length
    return at
  }
}
