import { constants, type OutgoingHttpHeaders, type ServerHttp2Stream } from 'node:http2'
import type { Duplex } from 'node:stream'
import type { OwnAnswer } from '../answers/own-answer.ts'
import type { HttpLimits } from '../limits.ts'
import type { ClientRequest } from '../request/client-request.ts'
import { isHopByHop } from '../wire/body-framing.ts'
import { isFieldValue, isToken } from '../wire/characters.ts'
import type { Field } from '../wire/fields.ts'
import type { ResponseHead } from '../wire/response-head.ts'
import { mayTrail } from '../wire/trailer-names.ts'
import type { ClientSide, RequestEvents, StartExchange } from './client-side.ts'

const fullBytes = 262_144

/**
 * One HTTP/2 stream as the client's end of a request.
 *
 * open -> answered (all was handed to the stream) -> closed; open -> closed when the client resets it or its connection ends.
 */
export class Http2ClientStream implements ClientSide {
  readonly #stream: ServerHttp2Stream
  readonly #limits: HttpLimits
  readonly #exchange: RequestEvents
  #answered = false
  #bodyDone: boolean
  #reading = false
  #trailers: Field[] = []
  #answerTrailers: OutgoingHttpHeaders | undefined
  #received = 0
  readonly #length: number | undefined
  readonly #bodiless: boolean
  #deadline = Number.POSITIVE_INFINITY

  constructor(stream: ServerHttp2Stream, request: ClientRequest, limits: HttpLimits, start: StartExchange) {
    this.#stream = stream
    this.#limits = limits
    this.#length = request.body.kind === 'length' ? request.body.length : undefined
    this.#bodyDone = request.body.kind === 'none' || this.#length === 0
    this.#bodiless = request.method === 'HEAD'
    stream.on('error', () => {})
    stream.on('close', () => this.#onClose())
    stream.on('drain', () => this.#exchange.clientDrained())
    stream.on('trailers', (_headers, _flags, raw) => this.#onTrailers(raw as unknown as string[]))
    stream.on('wantTrailers', () => this.#sendTrailers())
    this.#exchange = start(this, request)
  }

  tick(now: number): void {
    this.#exchange.tick(now)
    if (now < this.#deadline) return
    this.#deadline = Number.POSITIVE_INFINITY
    this.#stream.destroy(new Error('the body did not come in time'))
  }

  readBody(): void {
    if (this.#bodyDone) return
    this.#deadline = Date.now() + this.#limits.bodyMs
    if (!this.#reading) {
      this.#reading = true
      this.#stream.on('data', (bytes: Buffer) => this.#onData(bytes))
      this.#stream.on('end', () => this.#onBodyEnd())
    }
    this.#stream.resume()
  }

  pauseBody(): void {
    this.#deadline = Number.POSITIVE_INFINITY
    this.#stream.pause()
  }

  informational(head: ResponseHead): void {
    if (this.#isClosed()) return
    this.#stream.additionalHeaders({ ...answerFields(head), ':status': head.status })
  }

  head(head: ResponseHead): void {
    if (this.#isClosed()) return
    const { body } = head
    const headers = answerFields(head)
    if (body.kind === 'length') headers['content-length'] = String(body.length)
    const endStream = body.kind === 'none' || (body.kind === 'length' && body.length === 0)
    this.#stream.respond({ ...headers, ':status': head.status }, { endStream, waitForTrailers: body.kind === 'chunked' })
    if (endStream) this.#answered = true
  }

  data(bytes: Buffer): void {
    if (!this.#isClosed()) this.#stream.write(bytes)
  }

  end(trailers: readonly Field[]): void {
    this.#answered = true
    this.#deadline = Number.POSITIVE_INFINITY
    if (this.#isClosed()) return
    if (trailers.length > 0) this.#answerTrailers = collect(trailers)
    this.#finish()
  }

  flush(): boolean {
    return this.#stream.destroyed || this.#stream.writableLength <= fullBytes
  }

  answer({ status, headers, contentType, body }: OwnAnswer): void {
    this.#answered = true
    this.#deadline = Number.POSITIVE_INFINITY
    if (this.#isClosed()) return
    const fields = collect(headers.map(([name, value]) => ({ name, lower: name.toLowerCase(), value })))
    const bytes = Buffer.from(body)
    this.#stream.respond({ ...fields, ':status': status, 'content-type': contentType, 'content-length': String(bytes.length) })
    if (!this.#bodiless) this.#stream.write(bytes)
    this.#finish()
  }

  cut(): void {
    this.#answered = true
    // `close` would end the body properly before the reset.
    this.#stream.destroy(new Error('the answer cannot be whole'))
  }

  switchProtocol(): { readonly socket: Duplex; readonly sent: Buffer } {
    throw new Error('HTTP/2 has no upgrades')
  }

  /** A client that still sends a body nobody reads is told to stop. */
  #finish(): void {
    const stream = this.#stream
    stream.end()
    if (this.#bodyDone) return
    stream.once('finish', () => stream.close(constants.NGHTTP2_NO_ERROR))
    stream.resume()
  }

  #isClosed(): boolean {
    return this.#stream.destroyed || this.#stream.closed
  }

  #onData(bytes: Buffer): void {
    if (this.#answered) return
    this.#deadline = Date.now() + this.#limits.bodyMs
    this.#received += bytes.length
    if (this.#length !== undefined && this.#received > this.#length) {
      this.#stream.destroy(new Error('the body is longer than its Content-Length'))
      return
    }
    this.#exchange.bodyData(bytes)
    this.#exchange.bodyFlush()
  }

  #onBodyEnd(): void {
    // A reset ends the readable side, too, and must not look like the end of the body. Before our answer, only a reset closes a stream.
    if (this.#answered || this.#isClosed() || (this.#length !== undefined && this.#received !== this.#length)) return
    this.#bodyDone = true
    this.#deadline = Number.POSITIVE_INFINITY
    this.#exchange.bodyEnd(this.#trailers)
    this.#exchange.bodyFlush()
  }

  #onTrailers(raw: readonly string[]): void {
    for (let i = 0; i + 1 < raw.length; i += 2) {
      const lower = raw[i] ?? ''
      const value = raw[i + 1] ?? ''
      if (isToken(lower) && isFieldValue(value) && mayTrail(lower)) this.#trailers.push({ name: lower, lower, value })
    }
  }

  /** Node throws on what it does not take, and the names came out of a sandbox. */
  #sendTrailers(): void {
    try {
      this.#stream.sendTrailers(this.#answerTrailers ?? {})
    } catch {
      this.#stream.destroy(new Error('the answer has trailers that cannot be sent'))
    }
  }

  #onClose(): void {
    this.#deadline = Number.POSITIVE_INFINITY
    if (!this.#answered || this.#stream.rstCode !== constants.NGHTTP2_NO_ERROR) this.#exchange.clientGone()
  }
}

function answerFields(head: ResponseHead): OutgoingHttpHeaders {
  const fields = head.fields.filter(({ lower }) => !isHopByHop(lower) && !head.connection.includes(lower))
  const headers = collect(fields)
  if (head.body.kind !== 'none' || head.status < 200 || head.status === 204) return headers
  const length = head.fields.find((field) => field.lower === 'content-length')
  return length === undefined ? headers : { ...headers, 'content-length': length.value }
}

/** HTTP/2 allows one value of these only; the first is taken. */
function collect(fields: readonly Field[]): OutgoingHttpHeaders {
  const headers: Record<string, string | string[]> = Object.create(null)
  for (const { lower, value } of fields) {
    const before = headers[lower]
    if (before === undefined) headers[lower] = value
    else if (Array.isArray(before)) before.push(value)
    else if (!singleValues.has(lower)) headers[lower] = [before, value]
  }
  return headers
}

const singleValues: ReadonlySet<string> = new Set(
  'access-control-allow-credentials access-control-max-age access-control-request-method age authorization content-encoding content-language content-length content-location content-md5 content-range content-type date dnt etag expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards proxy-authorization range referer retry-after tk upgrade-insecure-requests user-agent x-content-type-options'.split(
    ' ',
  ),
)
