import { constants, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2'
import { jsonAnswer } from '../answers/own-answer.ts'
import type { HttpLimits } from '../limits.ts'
import type { ClientAddress } from '../request/client-request.ts'
import { WireError } from '../wire/wire-error.ts'
import type { StartExchange } from './client-side.ts'
import type { ConnectionCounts } from './connection-counts.ts'
import { readHttp2Head } from './http2-request-head.ts'
import { Http2ClientStream } from './http2-stream.ts'

const sessionWindowBytes = 2 * 1024 * 1024

export interface Http2Deps {
  readonly limits: HttpLimits
  readonly start: StartExchange
  readonly serverName: string | undefined
  readonly address: ClientAddress
  /** Of all sessions. */
  readonly streams: ConnectionCounts
  readonly onClosed: () => void
}

/** A client's connection that speaks HTTP/2; each stream is a request of its own. */
export class Http2ClientSession {
  readonly #deps: Http2Deps
  readonly #session: ServerHttp2Session
  readonly #streams = new Set<Http2ClientStream>()

  constructor(session: ServerHttp2Session, deps: Http2Deps) {
    this.#deps = deps
    this.#session = session
    session.on('stream', (stream, _headers, flags, raw) => this.#onStream(stream, flags, raw as unknown as string[]))
    session.on('error', () => session.destroy())
    session.on('close', deps.onClosed)
    session.setLocalWindowSize(sessionWindowBytes)
    session.setTimeout(deps.limits.keepAliveMs, () => {
      if (this.#streams.size === 0) session.close()
    })
  }

  tick(now: number): void {
    for (const stream of this.#streams) stream.tick(now)
  }

  /** No new streams; closed once those it has are over. */
  drain(): void {
    this.#session.close()
  }

  destroy(): void {
    this.#session.destroy()
  }

  #onStream(stream: ServerHttp2Stream, flags: number, raw: readonly string[]): void {
    const { address, serverName, limits, start, streams } = this.#deps
    const uncount = streams.add(address.address, !address.trusted)
    if (uncount === undefined) {
      stream.on('error', () => {})
      // RFC 9113 8.7: nothing was done, it may be asked again.
      stream.close(constants.NGHTTP2_REFUSED_STREAM)
      return
    }
    stream.once('close', uncount)
    try {
      const request = readHttp2Head(raw, (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0, address, serverName)
      const client = new Http2ClientStream(stream, request, limits, start)
      this.#streams.add(client)
      stream.once('close', () => this.#streams.delete(client))
    } catch (error) {
      if (!(error instanceof WireError)) throw error
      this.#refuse(stream, error)
    }
  }

  #refuse(stream: ServerHttp2Stream, error: WireError): void {
    stream.on('error', () => {})
    if (stream.destroyed) return
    const { status, contentType, body } = jsonAnswer(error.status, { error: error.message, code: 'bad_request' })
    stream.respond({ ':status': status, 'content-type': contentType, 'cache-control': 'no-store' })
    stream.end(body, () => stream.close(constants.NGHTTP2_NO_ERROR))
    stream.resume()
  }
}
