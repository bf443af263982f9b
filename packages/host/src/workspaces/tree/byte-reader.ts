/** What was read is not what the format allows; whoever knows where it lies makes a MagsError('workspace_damaged') of it. */
export class FormatError extends Error {
  override readonly name = 'FormatError'
}

/** Throws FormatError unless the condition holds. */
export function must(holds: boolean, words: string): asserts holds {
  if (!holds) throw new FormatError(words)
}

/** Reads what a `ByteWriter` wrote and never past the end; throws FormatError. */
export class ByteReader {
  readonly #bytes: Buffer
  #at: number

  constructor(bytes: Buffer, at = 0) {
    this.#bytes = bytes
    this.#at = at
  }

  get at(): number {
    return this.#at
  }

  get left(): number {
    return this.#bytes.length - this.#at
  }

  byte(): number {
    const value = this.#bytes[this.#at++]
    must(value !== undefined, 'it ends too early')
    return value
  }

  varint(most: number): number {
    let value = 0
    let scale = 1
    for (let count = 0; count < 8; count++) {
      const byte = this.byte()
      value += (byte & 0x7f) * scale
      if (byte < 0x80) {
        must(value <= most, 'a number is too large')
        return value
      }
      scale *= 0x80
    }
    throw new FormatError('a number does not end')
  }

  signed(most: number): number {
    const value = this.varint(most * 2)
    return value % 2 === 1 ? -(value + 1) / 2 : value / 2
  }

  u32(): number {
    must(this.left >= 4, 'it ends too early')
    const value = this.#bytes.readUInt32LE(this.#at)
    this.#at += 4
    return value
  }

  u64(): bigint {
    must(this.left >= 8, 'it ends too early')
    const value = this.#bytes.readBigUInt64LE(this.#at)
    this.#at += 8
    return value
  }

  /** A view, not a copy. */
  raw(length: number): Buffer {
    must(this.left >= length, 'it ends too early')
    this.#at += length
    return this.#bytes.subarray(this.#at - length, this.#at)
  }

  /** A view of bytes with their length before them. */
  sized(most: number): Buffer {
    return this.raw(this.varint(most))
  }
}
