import { once } from 'node:events'
import type { FastifyReply } from 'fastify'

const commentEveryMs = 15_000

/** One event as the WHATWG HTML standard, section 9.2, has it. JSON has no raw new lines, so one `data` line is enough. */
export function formatEvent(event: { id?: string; event: string; data: unknown }): string {
  return `${event.id === undefined ? '' : `id: ${event.id}\n`}event: ${event.event}\ndata: ${JSON.stringify(event.data)}\n\n`
}

/** A Server-Sent Events answer. Nothing is buffered beyond the socket's own buffer: `send` settles when the reader has room again. */
export class EventStream implements Disposable {
  readonly #raw: FastifyReply['raw']
  readonly #comments: NodeJS.Timeout
  readonly #abort = new AbortController()

  /** Takes the reply over from Fastify and sends the headers. `shutdown` ends the stream from the server's side. */
  constructor(reply: FastifyReply, shutdown: AbortSignal) {
    reply.hijack()
    this.#raw = reply.raw
    const headers = { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-store', 'x-accel-buffering': 'no' }
    this.#raw.writeHead(200, headers)
    this.#raw.flushHeaders()
    this.#raw.once('close', () => this.#abort.abort())
    this.#raw.on('error', () => this.#abort.abort())
    shutdown.addEventListener('abort', () => this.#abort.abort(), { once: true, signal: this.#abort.signal })
    if (shutdown.aborted || this.#raw.destroyed) this.#abort.abort()
    this.#comments = setInterval(() => {
      if (!this.#raw.writableNeedDrain) this.#raw.write(': still here\n\n')
    }, commentEveryMs)
  }

  /** Aborted when the reader went away or the server shuts down. */
  get closed(): AbortSignal {
    return this.#abort.signal
  }

  async send(text: string): Promise<void> {
    if (this.closed.aborted || this.#raw.write(text)) return
    await once(this.#raw, 'drain', { signal: this.closed }).catch(() => undefined)
  }

  [Symbol.dispose](): void {
    clearInterval(this.#comments)
    this.#raw.end()
    this.#abort.abort()
  }
}
