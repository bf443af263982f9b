import type { Readable } from 'node:stream'
import { MagsError } from '@mags/protocol'

const silenceLimitMs = 60_000
const restLimitMs = 10_000

/** A body as it comes, on a route with `streamsBody`. Throws MagsError 'request_timeout' when the client falls silent, and 'too_large' with these words beyond `maxBytes`. */
export async function* receivedBody(body: Readable, { maxBytes, tooLarge }: { maxBytes: number; tooLarge: string }): AsyncGenerator<Uint8Array> {
  let total = 0
  // Whoever stops early still wants to answer over this connection.
  const source = body.iterator({ destroyOnReturn: false })
  try {
    for (;;) {
      const { done, value } = (await spoken(source.next())) as IteratorResult<Buffer, undefined>
      if (done) return
      total += value.length
      if (total > maxBytes) throw new MagsError('too_large', tooLarge)
      yield value
    }
  } finally {
    // Not awaited: after a silence it would wait for what does not come.
    void source.return?.()
  }
}

async function spoken<T>(next: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const silence = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new MagsError('request_timeout', `nothing more of the body came for ${silenceLimitMs / 1000} s`)), silenceLimitMs)
  })
  try {
    return await Promise.race([next, silence])
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Reads and drops what is left of a body that was refused, while the answer goes out, and cuts the connection when that takes long: an end of the
 * connection while the client is still sending would often come before the answer is seen.
 */
export function dropRest(body: Readable): void {
  if (!body.readable) return
  const cut = setTimeout(() => body.destroy(), restLimitMs)
  for (const event of ['end', 'close', 'error']) body.once(event, () => clearTimeout(cut))
  body.unpipe()
  body.resume()
}
