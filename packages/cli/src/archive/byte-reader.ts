import { TarError } from './tar-error.ts'

/** Reads a stream by the count. */
export class ByteReader {
  #pending: Uint8Array = new Uint8Array()
  readonly #parts: AsyncIterator<Uint8Array>

  constructor(parts: AsyncIterable<Uint8Array>) {
    this.#parts = parts[Symbol.asyncIterator]()
  }

  /** Undefined when the stream is at its end. Throws TarError when it ends within. */
  async block(length: number): Promise<Buffer | undefined> {
    const parts: Uint8Array[] = []
    let missing = length
    while (missing > 0) {
      const part = await this.#take(missing)
      if (part === undefined) {
        if (missing === length) return undefined
        throw cutShort()
      }
      parts.push(part)
      missing -= part.length
    }
    return parts.length === 1 ? Buffer.from(parts[0] ?? []) : Buffer.concat(parts)
  }

  /** The next `count` bytes as they come. Throws TarError when there are fewer. */
  async *bytes(count: number): AsyncGenerator<Uint8Array> {
    for (let missing = count; missing > 0; ) {
      const part = await this.#take(missing)
      if (part === undefined) throw cutShort()
      missing -= part.length
      yield part
    }
  }

  async skip(count: number): Promise<void> {
    for await (const _part of this.bytes(count)) {
      // Only passed over.
    }
  }

  /** To the end of the stream, so that its sender is not cut off within padding. Bounded: a sender that never ends is left. */
  async drain(maxBytes: number): Promise<void> {
    for (let left = maxBytes; left > 0; ) {
      const part = await this.#take(left)
      if (part === undefined) return
      left -= part.length
    }
  }

  async close(): Promise<void> {
    await this.#parts.return?.()
  }

  async #take(atMost: number): Promise<Uint8Array | undefined> {
    while (this.#pending.length === 0) {
      const { done, value } = await this.#parts.next()
      if (done) return undefined
      this.#pending = value
    }
    const part = this.#pending.subarray(0, atMost)
    this.#pending = this.#pending.subarray(part.length)
    return part
  }
}

function cutShort(): TarError {
  return new TarError('The archive ends too early: what came until then is in place, the rest is missing. Copy it again.')
}
