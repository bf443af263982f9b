import { connectionErrorFrom, MagsApiError, MagsConnectionError, MagsProtocolError } from '../errors.ts'
import { type Answer, withCamelNames } from '../wire/names.ts'
import { readApiError } from './api-error.ts'
import type { Content } from './content.ts'
import { Deadline } from './deadline.ts'
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
  readonly onRetry?: RetryListener | undefined
  readonly transport: Transport
}

/** Why a request is sent again, and after how many milliseconds. */
export type RetryListener = (error: unknown, delayMs: number) => void

export interface ApiRequest {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'PUT' | 'DELETE'
  /** Below `/api/v1`, encoded. */
  readonly path: string
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>
  /** Sent as JSON. */
  readonly body?: unknown
  /** Sent as it is, in the place of `body`. The time limit then is one of silence: it starts anew with every part that goes out. */
  readonly content?: Content
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal | undefined
  /** Sending it twice does nothing twice. True for GET by itself. */
  readonly repeatable?: boolean
  /** Its content can be read only once, so it is never sent a second time. */
  readonly once?: boolean
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
      const text = (await this.#whole(request, 'in all')).toString('utf8')
      try {
        return withCamelNames(JSON.parse(text) as Wire)
      } catch (error) {
        throw new MagsProtocolError(`${this.apiUrl} answered ${request.path} with something that is not JSON. Is it a Mags server?`, error)
      }
    })
  }

  /** The same for an answer that is bytes; its time limit is one of silence. */
  async bytes(request: ApiRequest): Promise<Buffer> {
    return await this.#withRetries(request, () => this.#whole(request, 'between parts'))
  }

  /** One request whose answer is read as it comes. Not retried: the caller knows where to go on. */
  async open(request: ApiRequest): Promise<OpenStream> {
    const deadline = this.#deadline(request)
    const close = () => {
      deadline[Symbol.dispose]()
      deadline.abort(new Error('The stream was closed.'))
    }
    try {
      const response = await this.#send(request, deadline)
      deadline.stopClock()
      return { response, close }
    } catch (error) {
      close()
      throw this.#translate(error, request.signal, deadline)
    }
  }

  async #once<Result>(request: ApiRequest, read: (response: TransportResponse, deadline: Deadline) => Promise<Result>): Promise<Result> {
    using deadline = this.#deadline(request)
    try {
      return await read(await this.#send(request, deadline), deadline)
    } catch (error) {
      throw this.#translate(error, request.signal, deadline)
    }
  }

  async #whole(request: ApiRequest, timeLimit: 'in all' | 'between parts'): Promise<Buffer> {
    return await this.#once(request, async (response, deadline) => {
      const parts: Uint8Array[] = []
      for await (const part of response.body) {
        if (timeLimit === 'between parts') deadline.touch()
        parts.push(part)
      }
      return Buffer.concat(parts)
    })
  }

  #deadline(request: ApiRequest): Deadline {
    const timeoutMs = request.timeoutMs ?? this.#options.timeoutMs
    return new Deadline(request.signal, timeoutMs, () => this.#timeoutError(timeoutMs))
  }

  async #send(request: ApiRequest, deadline: Deadline): Promise<TransportResponse> {
    const url = new URL(`${this.apiUrl}/api/v1${request.path}`)
    for (const [name, value] of Object.entries(request.query ?? {})) {
      if (value !== undefined) url.searchParams.set(name, String(value))
    }
    const headers: Record<string, string> = { accept: 'application/json', 'user-agent': 'mags-sdk-node', ...request.headers }
    if (this.#options.apiToken !== undefined) headers.authorization = `Bearer ${this.#options.apiToken}`
    const body = bodyOf(request, headers, deadline)
    const response = await this.#options.transport({ method: request.method, url, headers, signal: deadline.signal, ...body })
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
        const over = request.once === true || tries >= this.#options.maxRetries || (isRefused(error) && !this.#options.retryRefused)
        const delayMs = over ? undefined : retryDelayMs(error, repeatable, tries)
        if (delayMs === undefined || waitedMs + delayMs > maxRetryWaitMs) throw error
        waitedMs += delayMs
        this.#options.onRetry?.(error, delayMs)
        await wait(delayMs, request.signal)
      }
    }
  }

  #timeoutError(timeoutMs: number): MagsConnectionError {
    return new MagsConnectionError(this.apiUrl, 'TIMEOUT', `Mags at ${this.apiUrl} did not answer within ${timeoutMs / 1000} s. Try again, or allow more time.`)
  }

  #translate(error: unknown, signal: AbortSignal | undefined, deadline: Deadline): unknown {
    if (signal?.aborted) return signal.reason
    if (deadline.contentFailure !== undefined) return deadline.contentFailure
    if (error instanceof MagsApiError || error instanceof MagsConnectionError || error instanceof MagsProtocolError) return error
    return connectionErrorFrom(this.apiUrl, error)
  }
}

/** The body of a try, with the headers that belong to it. */
function bodyOf(request: ApiRequest, headers: Record<string, string>, deadline: Deadline): { body?: string | AsyncIterable<Uint8Array> } {
  const { content } = request
  if (content !== undefined) {
    headers['content-type'] = content.type
    if (content.lengthBytes !== undefined) headers['content-length'] = String(content.lengthBytes)
    return { body: touching(content.open(), deadline) }
  }
  if (request.body === undefined) return {}
  headers['content-type'] = 'application/json'
  return { body: JSON.stringify(request.body) }
}

async function* touching(parts: AsyncIterable<Uint8Array>, deadline: Deadline): AsyncGenerator<Uint8Array> {
  try {
    for await (const part of parts) {
      deadline.touch()
      yield part
    }
  } catch (error) {
    deadline.contentFailure = error
    throw error
  }
  deadline.touch()
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
