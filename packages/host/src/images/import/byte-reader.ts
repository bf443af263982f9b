import { tooLarge } from './import-limits.ts'

const nothing = Buffer.alloc(0)

/** Takes a stream apart in pieces of known length. Rejects with 'too_large' once more than `maxBytes` came. */
export class ByteReader {
  readonly #chunks: AsyncIterator<Uint8Array>
  readonly #maxBytes: number
  #rest: Buffer = nothing
  #taken = 0

  constructor(chunks: AsyncIterable<Uint8Array>, maxBytes: number) {
    this.#chunks = chunks[Symbol.asyncIterator]()
    this.#maxBytes = maxBytes
  }

  /** Bytes that came so far. */
  get taken() {
    return this.#taken
  }

  /** Exactly so many bytes; fewer at the end of the stream. */
  async read(length: number): Promise<Buffer> {
    if (this.#rest.length >= length) return this.#cut(length)
    const parts = [this.#rest]
    let have = this.#rest.length
    while (have < length) {
      const next = await this.#next()
      if (next === undefined) break
      parts.push(next)
      have += next.length
    }
    this.#rest = Buffer.concat(parts)
    return this.#cut(length)
  }

  /** The next so many bytes in pieces as they come; fewer at the end of the stream. */
  async *pieces(length: number): AsyncGenerator<Buffer> {
    for (let left = length; left > 0; ) {
      if (this.#rest.length === 0) {
        const next = await this.#next()
        if (next === undefined) return
        this.#rest = next
      }
      const piece = this.#cut(left)
      left -= piece.length
      yield piece
    }
  }

  /** Reads to the end and keeps nothing. */
  async drain(): Promise<void> {
    this.#rest = nothing
    while ((await this.#next()) !== undefined);
  }

  /** Leaves the stream, which ends what makes it. */
  async close(): Promise<void> {
    await this.#chunks.return?.().catch(() => undefined)
  }

  #cut(length: number): Buffer {
    const piece = this.#rest.subarray(0, length)
    this.#rest = this.#rest.subarray(piece.length)
    return piece
  }

  async #next(): Promise<Buffer | undefined> {
    const { value, done } = await this.#chunks.next()
    if (done) return undefined
    this.#taken += value.length
    if (this.#taken > this.#maxBytes) throw tooLarge(`it has more than ${Math.round(this.#maxBytes / 2 ** 20)} MB when it is unpacked`)
    return Buffer.from(value.buffer, value.byteOffset, value.length)
  }
}
