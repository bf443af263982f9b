import { AgentProtocolError } from './agent-protocol-error.ts'

/** Reads the fields of one payload; every read is checked against its end. */
export class PayloadReader {
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

  i32(): number {
    return this.#bytes.readInt32LE(this.#advance(4))
  }

  /** A count of bytes or the like: more than 2^53 − 1 is never meant. */
  u64(): number {
    const at = this.#advance(8)
    const high = this.#bytes.readUInt32LE(at + 4)
    if (high > 0x1f_ffff) throw new AgentProtocolError('a count over 2^53')
    return high * 0x1_0000_0000 + this.#bytes.readUInt32LE(at)
  }

  i64(): bigint {
    return this.#bytes.readBigInt64LE(this.#advance(8))
  }

  /** A view, not a copy. */
  bytes(count: number): Buffer {
    const at = this.#advance(count)
    return this.#bytes.subarray(at, at + count)
  }

  blob(): Buffer {
    return this.bytes(this.u32())
  }

  /** Bytes that are not UTF-8 become U+FFFD. */
  string(): string {
    return this.blob().toString('utf8')
  }

  rest(): Buffer {
    return this.bytes(this.left)
  }

  end() {
    if (this.left !== 0) throw new AgentProtocolError(`${this.left} bytes too many in a payload`)
  }

  #advance(count: number): number {
    const at = this.#at
    if (count > this.#bytes.length - at) throw new AgentProtocolError('a payload that ends early')
    this.#at = at + count
    return at
  }
}
