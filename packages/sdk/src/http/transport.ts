export interface TransportRequest {
  readonly method: string
  readonly url: URL
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string
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
  const response = await fetch(url, { method, headers: { ...headers }, signal, redirect: 'manual', ...(body === undefined ? {} : { body }) })
  return {
    status: response.status,
    header: (name) => response.headers.get(name) ?? undefined,
    body: response.body ?? noBytes,
  }
}

const noBytes: AsyncIterable<Uint8Array> = {
  async *[Symbol.asyncIterator]() {
    // An answer without a body.
  },
}
