export interface TransportRequest {
  readonly method: string
  readonly url: URL
  readonly headers: Readonly<Record<string, string>>
  /** Bytes that come one part after the other have their length in the header `content-length`, or go out in chunks. */
  readonly body?: string | AsyncIterable<Uint8Array>
  /** Ends the request and the reading of its answer, which then rejects. */
  readonly signal: AbortSignal
}

export interface TransportResponse {
  readonly status: number
  header(name: string): string | undefined
  /** The answer's bytes. Leaving the iteration early closes the connection. */
  readonly body: AsyncIterable<Uint8Array>
}

/** How one HTTP request goes out. Rejects when there is no answer; any status is an answer. */
export type Transport = (request: TransportRequest) => Promise<TransportResponse>

/** The platform's fetch. Redirects are not followed: a token must not go where nobody sent it. */
export const fetchTransport: Transport = async ({ method, url, headers, body, signal }) => {
  const response = await fetch(url, { method, headers: { ...headers }, signal, redirect: 'manual', ...bodyOf(body) })
  return {
    status: response.status,
    header: (name) => response.headers.get(name) ?? undefined,
    body: response.body ?? noBytes,
  }
}

function bodyOf(body: TransportRequest['body']) {
  if (body === undefined) return {}
  // A body of parts can only be sent while the answer is not read yet, which must be said (Fetch Standard, 5.4).
  return typeof body === 'string' ? { body } : { body: ReadableStream.from(body), duplex: 'half' as const }
}

const noBytes: AsyncIterable<Uint8Array> = {
  async *[Symbol.asyncIterator]() {
    // An answer without a body.
  },
}
