import type { TransportResponse } from '@mags/sdk'

/**
 * Reads an HTTP/1.1 response (RFC 9112) from the bytes of a connection that carries only this one. Rejects, or its body does, with an
 * error of code ECONNRESET when the bytes end too early, and EPROTO when they are not HTTP.
 */
export async function readResponse(bytes: AsyncIterable<Uint8Array>): Promise<TransportResponse> {
  const source = new ByteSource(bytes[Symbol.asyncIterator]())
  for (;;) {
    const statusLine = await source.line()
    const match = /^HTTP\/1\.[01] ([1-5]\d\d)(?: |$)/.exec(statusLine)
    if (match === null) throw fault('EPROTO', `not an HTTP/1.1 answer: ${JSON.stringify(statusLine.slice(0, 60))}`)
    const status = Number(match[1])
    const headers = await readHeaders(source)
    // Interim answers (RFC 9110, 15.2) come before the real one.
    if (status < 200) continue
    return { status, header: (name) => headers.get(name.toLowerCase()), body: readBody(source, status, headers) }
  }
}

async function readHeaders(source: ByteSource): Promise<ReadonlyMap<string, string>> {
  const headers = new Map<string, string>()
  for (let count = 0; ; count += 1) {
    const line = await source.line()
    if (line === '') return headers
    const colon = line.indexOf(':')
    if (colon < 1 || count > 200) throw fault('EPROTO', 'the headers of the answer are not HTTP')
    const name = line.slice(0, colon).toLowerCase()
    const value = line.slice(colon + 1).trim()
    const earlier = headers.get(name)
    headers.set(name, earlier === undefined ? value : `${earlier}, ${value}`)
  }
}

async function* readBody(source: ByteSource, status: number, headers: ReadonlyMap<string, string>): AsyncGenerator<Uint8Array> {
  try {
    if (status === 204 || status === 304) return
    const coding = headers.get('transfer-encoding')
    const length = headers.get('content-length')
    if (coding !== undefined) {
      if (coding.toLowerCase() !== 'chunked') throw fault('EPROTO', `unknown transfer coding ${JSON.stringify(coding)}`)
      yield* readChunks(source)
    } else if (length !== undefined) {
      if (!/^\d{1,15}$/.test(length)) throw fault('EPROTO', 'the length of the answer is not a number')
      yield* source.exactly(Number(length))
    } else {
      yield* source.rest()
    }
  } finally {
    await source.close()
  }
}

async function* readChunks(source: ByteSource): AsyncGenerator<Uint8Array> {
  for (;;) {
    const size = /^([0-9a-f]{1,8})(?:\s*;.*)?$/i.exec(await source.line())?.[1]
    if (size === undefined) throw fault('EPROTO', 'the answer is not cut as HTTP says')
    if (Number.parseInt(size, 16) === 0) {
      while ((await source.line()) !== '') {
        // Trailer fields.
      }
      return
    }
    yield* source.exactly(Number.parseInt(size, 16))
    if ((await source.line()) !== '') throw fault('EPROTO', 'the answer is not cut as HTTP says')
  }
}

const maxLineBytes = 64 * 1024

/** Bytes by the line or by the count. */
class ByteSource {
  #pending: Uint8Array = new Uint8Array()
  readonly #parts: AsyncIterator<Uint8Array>

  constructor(parts: AsyncIterator<Uint8Array>) {
    this.#parts = parts
  }

  async line(): Promise<string> {
    for (;;) {
      const end = this.#pending.indexOf(10)
      if (end >= 0) {
        const line = Buffer.from(this.#pending.subarray(0, end)).toString('latin1')
        this.#pending = this.#pending.subarray(end + 1)
        return line.endsWith('\r') ? line.slice(0, -1) : line
      }
      if (this.#pending.length > maxLineBytes) throw fault('EPROTO', 'a line of the answer is too long')
      const more = await this.#next()
      if (more === undefined) throw cut()
      this.#pending = this.#pending.length === 0 ? more : Buffer.concat([this.#pending, more])
    }
  }

  async *exactly(count: number): AsyncGenerator<Uint8Array> {
    for (let missing = count; missing > 0; ) {
      const part = await this.#take()
      if (part === undefined) throw cut()
      const wanted = part.subarray(0, missing)
      this.#pending = part.subarray(wanted.length)
      missing -= wanted.length
      yield wanted
    }
  }

  async *rest(): AsyncGenerator<Uint8Array> {
    for (let part = await this.#take(); part !== undefined; part = await this.#take()) yield part
  }

  async close(): Promise<void> {
    await this.#parts.return?.()
  }

  async #take(): Promise<Uint8Array | undefined> {
    if (this.#pending.length === 0) return await this.#next()
    const part = this.#pending
    this.#pending = new Uint8Array()
    return part
  }

  async #next(): Promise<Uint8Array | undefined> {
    const { done, value } = await this.#parts.next()
    return done ? undefined : value
  }
}

function cut(): Error {
  return fault('ECONNRESET', 'the connection ended before the answer')
}

function fault(code: string, message: string): Error {
  return Object.assign(new Error(message), { code })
}
