import { connectionErrorFrom, MagsApiError, MagsConnectionError, MagsProtocolError } from '../errors.ts'
import { type Answer, withCamelNames } from '../wire/names.ts'
import { readApiError } from './api-error.ts'
import type { Transport, TransportResponse } from './transport.ts'
import { backoffMs, wait } from './wait.ts'

export interface RequesterOptions {
  readonly apiUrl: string
  readonly apiToken: string | undefined
  /** How long one try may take, connection to last byte; for streams, to the first byte. */
  readonly timeoutMs: number
  readonly maxRetries: number
  /** Whether a refused connection is tried again: the server may be restarting. */
  readonly retryRefused: boolean
  readonly transport: Transport
}

export interface ApiRequest {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'PUT' | 'DELETE'
  /** Below `/api/v1`, encoded. */
  readonly path: string
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal | undefined
  /** Sending it twice does nothing twice. True for GET by itself. */
  readonly repeatable?: boolean
  readonly timeoutMs?: number
}

/** An open stream and the way to end it. */
export interface OpenStream {
  readonly response: TransportResponse
  close(): void
}

/** The longest a retry may be put off by the server's `Retry-After`, all retries of a call together. */
const maxRetryWaitMs = 30_000

/** Sends requests of the API: token, time limit, retries, errors. */
export class Requester {
  readonly apiUrl: string
  readonly #options: RequesterOptions

  constructor(options: RequesterOptions) {
    this.#options = options
    this.apiUrl = options.apiUrl
  }

  /** One request, its whole JSON answer. Throws MagsApiError, MagsConnectionError, MagsProtocolError, or the signal's reason. */
  async json<Wire>(request: ApiRequest): Promise<Answer<Wire>> {
    return await this.#withRetries(request, async () => {
      const timeoutMs = request.timeoutMs ?? this.#options.timeoutMs
      const text = await this.#once(request, timeoutMs, async (response) => {
        const parts: Uint8Array[] = []
        for await (const part of response.body) parts.push(part)
        return Buffer.concat(parts).toString('utf8')
      })
      try {
        return withCamelNames(JSON.parse(text) as Wire)
      } catch (error) {
        throw new MagsProtocolError(`${this.apiUrl} answered ${request.path} with something that is not JSON. Is it a Mags server?`, error)
      }
    })
  }

  /** One request whose answer is read as it comes. Not retried: the caller knows where to go on. */
  async open(request: ApiRequest): Promise<OpenStream> {
    const controller = new AbortController()
    const forward = () => controller.abort(request.signal?.reason)
    request.signal?.throwIfAborted()
    request.signal?.addEventListener('abort', forward, { once: true })
    const close = () => {
      request.signal?.removeEventListener('abort', forward)
      controller.abort(new Error('The stream was closed.'))
    }
    const timeoutMs = request.timeoutMs ?? this.#options.timeoutMs
    const timer = setTimeout(() => controller.abort(this.#timeoutError(timeoutMs)), timeoutMs)
    try {
      const response = await this.#send(request, controller.signal)
      return { response, close }
    } catch (error) {
      close()
      throw this.#translate(error, request.signal)
    } finally {
      clearTimeout(timer)
    }
  }

  async #once<Result>(request: ApiRequest, timeoutMs: number, read: (response: TransportResponse) => Promise<Result>): Promise<Result> {
    request.signal?.throwIfAborted()
    const controller = new AbortController()
    const forward = () => controller.abort(request.signal?.reason)
    request.signal?.addEventListener('abort', forward, { once: true })
    const timer = setTimeout(() => controller.abort(this.#timeoutError(timeoutMs)), timeoutMs)
    try {
      return await read(await this.#send(request, controller.signal))
    } catch (error) {
      throw this.#translate(error, request.signal)
    } finally {
      clearTimeout(timer)
      request.signal?.removeEventListener('abort', forward)
    }
  }

  async #send(request: ApiRequest, signal: AbortSignal): Promise<TransportResponse> {
    const url = new URL(`${this.apiUrl}/api/v1${request.path}`)
    for (const [name, value] of Object.entries(request.query ?? {})) {
      if (value !== undefined) url.searchParams.set(name, String(value))
    }
    const headers: Record<string, string> = { accept: 'application/json', 'user-agent': 'mags-sdk-node', ...request.headers }
    if (this.#options.apiToken !== undefined) headers.authorization = `Bearer ${this.#options.apiToken}`
    if (request.body !== undefined) headers['content-type'] = 'application/json'
    const body = request.body === undefined ? {} : { body: JSON.stringify(request.body) }
    const response = await this.#options.transport({ method: request.method, url, headers, signal, ...body })
    if (response.status < 200 || response.status > 299) throw await readApiError(response, url)
    return response
  }

  async #withRetries<Result>(request: ApiRequest, attempt: () => Promise<Result>): Promise<Result> {
    const repeatable = request.repeatable ?? request.method === 'GET'
    let waitedMs = 0
    for (let tries = 0; ; tries += 1) {
      try {
        return await attempt()
      } catch (error) {
        const over = tries >= this.#options.maxRetries || (isRefused(error) && !this.#options.retryRefused)
        const delayMs = over ? undefined : retryDelayMs(error, repeatable, tries)
        if (delayMs === undefined || waitedMs + delayMs > maxRetryWaitMs) throw error
        waitedMs += delayMs
        await wait(delayMs, request.signal)
      }
    }
  }

  #timeoutError(timeoutMs: number): MagsConnectionError {
    return new MagsConnectionError(this.apiUrl, 'TIMEOUT', `Mags at ${this.apiUrl} did not answer within ${timeoutMs / 1000} s. Try again, or allow more time.`)
  }

  #translate(error: unknown, signal: AbortSignal | undefined): unknown {
    if (signal?.aborted) return signal.reason
    if (error instanceof MagsApiError || error instanceof MagsConnectionError || error instanceof MagsProtocolError) return error
    return connectionErrorFrom(this.apiUrl, error)
  }
}

function isRefused(error: unknown): boolean {
  return error instanceof MagsConnectionError && error.code === 'ECONNREFUSED'
}

/** Undefined: not worth or not safe to try again. */
function retryDelayMs(error: unknown, repeatable: boolean, tries: number): number | undefined {
  if (error instanceof MagsConnectionError && error.code !== 'TIMEOUT') return repeatable || error.unsent ? backoffMs(tries) : undefined
  if (error instanceof MagsApiError && error.status === 503 && error.retryAfterSeconds !== undefined) {
    return Math.max(error.retryAfterSeconds * 1000, backoffMs(tries))
  }
  return undefined
}
