import type { ServerChannel } from 'ssh2'
import type { Congestion } from './congestion.ts'
import { forgetSent } from './ssh2-internals.ts'

/** What goes to the client on one channel: in order, one write at a time, no faster than the client's window and the connection take it. */
export class ChannelOutput {
  readonly #channel: ServerChannel
  readonly #congestion: Congestion
  readonly #closed: AbortSignal
  #last: Promise<void> = Promise.resolve()

  /** `closed`: the channel or its connection is gone. */
  constructor(channel: ServerChannel, congestion: Congestion, closed: AbortSignal) {
    this.#channel = channel
    this.#congestion = congestion
    this.#closed = closed
    channel.on('error', () => undefined)
    channel.stderr.on('error', () => undefined)
  }

  /** Settles when the bytes are on their way, or nobody is there to take them; never rejects. */
  write(source: 'stdout' | 'stderr', bytes: Uint8Array): Promise<void> {
    this.#last = this.#last.then(() => this.#send(source, bytes))
    return this.#last
  }

  /** Settles when all so far was written. */
  get written(): Promise<void> {
    return this.#last
  }

  async #send(source: 'stdout' | 'stderr', bytes: Uint8Array): Promise<void> {
    const room = this.#congestion.wait()
    if (room !== undefined) await room
    if (this.#closed.aborted || bytes.byteLength === 0) return
    const { promise, resolve } = Promise.withResolvers<void>()
    const done = () => resolve()
    this.#closed.addEventListener('abort', done, { once: true })
    try {
      const stream = source === 'stdout' ? this.#channel : this.#channel.stderr
      stream.write(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), done)
      await promise
      if (!this.#closed.aborted) forgetSent(this.#channel)
    } catch {
      // ssh2 throws on a connection that broke; its end is told by `closed`.
    } finally {
      this.#closed.removeEventListener('abort', done)
    }
  }
}
