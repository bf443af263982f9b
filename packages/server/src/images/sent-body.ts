import type { Readable } from 'node:stream'
import { MagsError } from '@mags/protocol'
import { receivedBody } from '../http/received-body.ts'

/** The body of a request as something to read once, and the news that all of it was. */
export class SentBody implements AsyncIterable<Uint8Array> {
  /** Settles once it was read to its end; never rejects. */
  readonly consumed: Promise<void>
  readonly #parts: AsyncGenerator<Uint8Array>

  /** Throws MagsError 'too_large' with these words over `maxBytes`, while it is read or at once when it says so itself. */
  constructor(body: Readable & { readonly headers: { readonly 'content-length'?: string | undefined } }, limit: { maxBytes: number; tooLarge: string }) {
    if (Number(body.headers['content-length']) > limit.maxBytes) throw new MagsError('too_large', limit.tooLarge)
    const { promise, resolve } = Promise.withResolvers<void>()
    this.consumed = promise
    this.#parts = read(receivedBody(body, limit), resolve)
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    return this.#parts
  }
}

async function* read(parts: AsyncIterable<Uint8Array>, consumed: () => void): AsyncGenerator<Uint8Array> {
  try {
    yield* parts
  } catch (error) {
    if (error instanceof MagsError) throw error
    throw new MagsError('bad_request', 'what was sent ended before its end; send it again', { cause: error })
  }
  consumed()
}
