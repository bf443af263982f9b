import { Agent, request } from 'node:http'

export interface FirstByte {
  readonly requestId: string
  /** From before the submit was sent until the first byte of standard output was read. */
  readonly firstByteMs: number
  /** Until the end of the job was read. */
  readonly endMs: number
}

/** The leanest client of the API: what is measured is the server, not a library. */
export class BenchClient {
  readonly #url: URL
  readonly #token: string
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 512 })

  constructor(daemon: { url: string; token: string }) {
    this.#url = new URL(daemon.url)
    this.#token = daemon.token
  }

  close() {
    this.#agent.destroy()
  }

  async get<T>(path: string): Promise<T> {
    return JSON.parse(await this.#text('GET', path))
  }

  async call<T>(method: string, path: string, body?: unknown): Promise<T> {
    return JSON.parse(await this.#text(method, path, body))
  }

  /** Reads Server-Sent Events until the last, which it resolves with (its end, if that is long). */
  async follow(path: string, onText: (text: string) => void = () => undefined): Promise<string> {
    return await this.#stream(path, onText)
  }

  /** Submits a script and reads its log by Server-Sent Events until the end. */
  async firstByte(job: Record<string, unknown>): Promise<FirstByte> {
    const begin = performance.now()
    const { request_id: requestId } = JSON.parse(await this.#text('POST', '/api/v1/mags-jobs', job)) as { request_id: string }
    let firstByteMs = Number.NaN
    const end = await this.#stream(`/api/v1/mags-jobs/${requestId}/logs?follow=true`, (text) => {
      if (Number.isNaN(firstByteMs) && text.includes('"source":"stdout"')) firstByteMs = performance.now() - begin
    })
    if (Number.isNaN(firstByteMs)) throw new Error(`job ${requestId} printed nothing: ${end}`)
    if (!end.includes('"exit_code":0')) throw new Error(`job ${requestId}: ${end}`)
    return { requestId, firstByteMs, endMs: performance.now() - begin }
  }

  async submit(job: Record<string, unknown>): Promise<string> {
    return (JSON.parse(await this.#text('POST', '/api/v1/mags-jobs', job)) as { request_id: string }).request_id
  }

  async stop(requestId: string) {
    await this.#text('POST', `/api/v1/mags-jobs/${requestId}/stop`, {})
  }

  async untilEnded(requestId: string): Promise<void> {
    const end = await this.#stream(`/api/v1/mags-jobs/${requestId}/logs?follow=true`, () => undefined)
    if (!end.includes('"exit_code":0')) throw new Error(`job ${requestId}: ${end}`)
  }

  #text(method: string, path: string, body?: unknown): Promise<string> {
    return new Promise((resolve, reject) => {
      const sent = request(this.#options(method, path, body), (response) => {
        let text = ''
        response.setEncoding('utf8')
        response.on('data', (part: string) => {
          text += part
        })
        response.on('end', () => ((response.statusCode ?? 500) < 300 ? resolve(text) : reject(new Error(`${method} ${path}: ${response.statusCode} ${text}`))))
      })
      sent.on('error', reject)
      sent.end(body === undefined ? undefined : JSON.stringify(body))
    })
  }

  /** Resolves with the tail of the stream: its `end` event. */
  #stream(path: string, onText: (text: string) => void): Promise<string> {
    return new Promise((resolve, reject) => {
      const sent = request(this.#options('GET', path), (response) => {
        let tail = ''
        response.setEncoding('utf8')
        response.on('data', (part: string) => {
          onText(part)
          tail = (tail + part).slice(-512)
        })
        response.on('end', () => (tail.includes('event: end') ? resolve(tail) : reject(new Error(`${path}: cut short: ${tail}`))))
        response.on('error', reject)
      })
      sent.on('error', reject)
      sent.end()
    })
  }

  #options(method: string, path: string, body?: unknown) {
    const headers = { authorization: `Bearer ${this.#token}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) }
    return { host: this.#url.hostname, port: this.#url.port, method, path, headers, agent: this.#agent }
  }
}
