import type { Duplex } from 'node:stream'
import { ChunkedReader } from '../wire/chunked-reader.ts'
import type { Field } from '../wire/fields.ts'
import { HeadBuffer } from '../wire/head-buffer.ts'
import { parseResponseHead, type ResponseHead } from '../wire/response-head.ts'
import { WireError } from '../wire/wire-error.ts'
import { PendingOutput } from './pending-output.ts'

/** Who asked, and gets the answer in pieces. `onFlush` comes when all was handed over that is there now. */
export interface AnswerSink {
  onInformational(head: ResponseHead): void
  onHead(head: ResponseHead): void
  onData(bytes: Buffer): void
  /** The answer is whole. `reusable`: as far as the answer goes, the connection may carry another request. */
  onEnd(trailers: readonly Field[], reusable: boolean): void
  /** Answered 101: from now on the socket belongs to the asker; `rest` is what followed the head. */
  onSwitched(head: ResponseHead, socket: Duplex, rest: Buffer): void
  onFlush(): void
  /** It accepts bytes again. */
  onDrain(): void
  /** The answer will not be whole. `silent`: not one byte of it came. */
  onFailed(error: Error, silent: boolean): void
}

export interface SentRequest {
  readonly method: string
  readonly upgrade: boolean
}

const maxInformational = 32

/**
 * One connection to a server in a sandbox; what comes from there is hostile.
 *
 * idle -> head (`send`) -> length | chunked | close -> idle when the answer was whole; any fault, unasked byte or end: -> closed. head -> closed with 101, when the socket goes to the asker.
 */
export class UpstreamConnection {
  readonly output: PendingOutput
  /** When it became idle, ms since 1970. */
  idleSince = 0
  readonly #socket: Duplex
  readonly #head = new HeadBuffer()
  #state: 'idle' | 'head' | 'length' | 'chunked' | 'close' | 'closed' = 'idle'
  #request: SentRequest = { method: 'GET', upgrade: false }
  #sink: AnswerSink | undefined
  #silent = true
  #informational = 0
  #reusable = false
  #remaining = 0
  #chunks: ChunkedReader | undefined
  #onIdleEnd: (() => void) | undefined

  constructor(socket: Duplex) {
    this.#socket = socket
    this.output = new PendingOutput(socket)
    socket.on('data', this.#onData)
    socket.on('end', this.#onSocketEnd)
    socket.on('close', this.#onSocketEnd)
    socket.on('error', this.#onSocketError)
    socket.on('drain', this.#onDrain)
  }

  get isUsable(): boolean {
    return this.#state === 'idle'
  }

  /** Takes the answer of a request whose head the caller puts into `output`. */
  send(request: SentRequest, sink: AnswerSink): void {
    if (this.#state === 'closed') {
      queueMicrotask(() => sink.onFailed(new Error('the server in the sandbox closed the connection'), true))
      return
    }
    this.#request = request
    this.#sink = sink
    this.#state = 'head'
    this.#silent = true
    this.#informational = 0
    this.#onIdleEnd = undefined
  }

  /** Waits for its next use; `onEnd` hears when it will never come. */
  rest(onEnd: () => void): void {
    this.#sink = undefined
    this.#onIdleEnd = onEnd
    this.idleSince = Date.now()
    if (this.#socket.isPaused()) this.#socket.resume()
  }

  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    if (this.#state !== 'closed') this.#socket.resume()
  }

  destroy(): void {
    if (this.#state === 'closed') return
    this.#state = 'closed'
    this.#sink = undefined
    const ended = this.#onIdleEnd
    this.#onIdleEnd = undefined
    this.#socket.destroy()
    ended?.()
  }

  readonly #onData = (bytes: Buffer): void => {
    const sink = this.#sink
    if (sink === undefined) {
      this.destroy()
      return
    }
    this.#silent = false
    try {
      this.#read(bytes, sink)
    } catch (error) {
      if (!(error instanceof WireError)) throw error
      this.#fail(new WireError(502, error.message))
      return
    }
    sink.onFlush()
  }

  readonly #onDrain = (): void => this.#sink?.onDrain()

  readonly #onSocketError = (error: Error): void => this.#fail(error)

  readonly #onSocketEnd = (): void => {
    if (this.#state === 'close') {
      // Only a clean end says that the answer is whole; `close` without `end` came from `destroy` or an error.
      const sink = this.#sink
      if (sink !== undefined && this.#socket.readableEnded) {
        this.#finish(sink, [], false)
        sink.onFlush()
        return
      }
    }
    this.#fail(new Error('the server in the sandbox closed the connection'))
  }

  #fail(error: Error): void {
    const sink = this.#sink
    const silent = this.#silent
    this.destroy()
    sink?.onFailed(error, silent)
  }

  #read(bytes: Buffer, sink: AnswerSink): void {
    let at = 0
    while (at < bytes.length) {
      switch (this.#state) {
        case 'head': {
          const taken = this.#head.take(at === 0 ? bytes : bytes.subarray(at))
          if (taken === undefined) return
          at += taken.next
          if (this.#takeHead(parseResponseHead(taken.head, this.#request.method), sink, bytes, at)) return
          break
        }
        case 'length': {
          const take = Math.min(this.#remaining, bytes.length - at)
          sink.onData(at === 0 && take === bytes.length ? bytes : bytes.subarray(at, at + take))
          at += take
          this.#remaining -= take
          if (this.#remaining === 0) {
            this.#finish(sink, [], at === bytes.length)
            return
          }
          break
        }
        case 'chunked': {
          let trailers: readonly Field[] | undefined
          at = this.#chunks?.read(bytes, at, { data: (chunk) => sink.onData(chunk), end: (fields) => (trailers = fields) }) ?? at
          if (trailers !== undefined) {
            this.#finish(sink, trailers, at === bytes.length)
            return
          }
          break
        }
        case 'close':
          sink.onData(at === 0 ? bytes : bytes.subarray(at))
          return
        default:
          return
      }
    }
  }

  /** True when nothing of `bytes` is left to read here. */
  #takeHead(head: ResponseHead, sink: AnswerSink, bytes: Buffer, at: number): boolean {
    if (head.status === 101) {
      if (!this.#request.upgrade || head.upgrade === undefined) throw new WireError(502, 'the answer is 101 without a request for it')
      this.#switch(head, sink, bytes.subarray(at))
      return true
    }
    if (head.status < 200) {
      if (++this.#informational > maxInformational) throw new WireError(502, 'too many interim answers')
      if (head.status === 100 || head.status === 103) sink.onInformational(head)
      return false
    }
    this.#reusable = head.reusable && this.#informational === 0
    sink.onHead(head)
    if (this.#state === 'closed') return true
    switch (head.body.kind) {
      case 'none':
        this.#finish(sink, [], false)
        return true
      case 'length':
        if (head.body.length === 0) {
          this.#finish(sink, [], at === bytes.length)
          return true
        }
        this.#remaining = head.body.length
        this.#state = 'length'
        return false
      case 'chunked':
        this.#chunks = new ChunkedReader()
        this.#state = 'chunked'
        return false
      case 'close':
        this.#state = 'close'
        return false
    }
  }

  #finish(sink: AnswerSink, trailers: readonly Field[], exact: boolean): void {
    const reusable = this.#reusable && exact
    if (this.#state !== 'closed') this.#state = 'idle'
    sink.onEnd(trailers, reusable)
  }

  #switch(head: ResponseHead, sink: AnswerSink, rest: Buffer): void {
    const socket = this.#socket
    this.#state = 'closed'
    this.#sink = undefined
    socket.off('data', this.#onData)
    socket.off('end', this.#onSocketEnd)
    socket.off('close', this.#onSocketEnd)
    socket.off('error', this.#onSocketError)
    socket.off('drain', this.#onDrain)
    sink.onSwitched(head, socket, rest)
  }
}
