import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { jsonAnswer, type OwnAnswer } from '../answers/own-answer.ts'
import type { HttpLimits } from '../limits.ts'
import type { ClientAddress } from '../request/client-request.ts'
import { PendingOutput } from '../upstream/pending-output.ts'
import { ChunkedReader } from '../wire/chunked-reader.ts'
import type { Field } from '../wire/fields.ts'
import { HeadBuffer } from '../wire/head-buffer.ts'
import { parseRequestHead, type RequestHead } from '../wire/request-head.ts'
import type { ResponseHead } from '../wire/response-head.ts'
import { WireError } from '../wire/wire-error.ts'
import { type AnswerFraming, answerHead, informationalHead, ownAnswerText } from './answer-head.ts'
import type { ClientSide, RequestEvents, StartExchange } from './client-side.ts'

/** Bytes of a client that are kept while they cannot be used; then the client has to wait. */
const maxInputBytes = 65_536
/** What a client may still send after our last answer, so that it gets to read it. */
const maxIgnoredBytes = 1_048_576
const ignoreMs = 2000

export interface Http1Deps {
  readonly limits: HttpLimits
  readonly start: StartExchange
  /** With TLS: the name the client asked for there. */
  readonly serverName: string | undefined
  readonly secure: boolean
  readonly address: ClientAddress
  readonly onClosed: () => void
}

/**
 * A client's connection that speaks HTTP/1.1 or 1.0, one request after the other; bytes of later ones wait.
 *
 * head -> request (an exchange has it) -> head …; request -> closing after the last answer, head -> closing after a refusal: what comes is ignored for a moment. request -> tunnel: the socket belongs to somebody else.
 * All -> closed.
 */
export class Http1Connection implements ClientSide {
  readonly #deps: Http1Deps
  readonly #socket: Socket
  readonly #output: PendingOutput
  readonly #head = new HeadBuffer()
  #state: 'head' | 'request' | 'closing' | 'tunnel' | 'closed' = 'head'
  #input: Buffer[] = []
  #inputBytes = 0
  #pumping = false
  #request: RequestHead | undefined
  #exchange: RequestEvents | undefined
  #bodyOpen = false
  #bodyDone = true
  #remaining = 0
  #chunks: ChunkedReader | undefined
  #framing: AnswerFraming = 'none'
  #ended = false
  #lastRequest = false
  #ignored = 0
  #deadline: number

  constructor(socket: Socket, deps: Http1Deps) {
    this.#deps = deps
    this.#socket = socket
    this.#output = new PendingOutput(socket)
    this.#deadline = Date.now() + deps.limits.headMs
    socket.on('data', this.#onData)
    socket.on('end', this.#onEnd)
    socket.on('close', this.#onClose)
    socket.on('error', this.#onError)
    socket.on('drain', this.#onDrain)
  }

  /** Looks whether something takes too long; called about once a second. */
  tick(now: number): void {
    this.#exchange?.tick(now)
    if (this.#state === 'tunnel' || now < this.#deadline) return
    this.#deadline = Number.POSITIVE_INFINITY
    if (this.#state === 'head' && !this.#head.isEmpty) this.#refuse(new WireError(408, 'the head did not come in time'))
    else if (this.#state === 'request' && !this.#bodyDone && this.#bodyOpen) {
      this.#exchange?.clientGone()
      this.#exchange = undefined
      if (this.#framing === 'none' && !this.#ended) this.#refuse(new WireError(408, 'the body did not come in time'))
      else this.#socket.destroy()
    } else if (this.#state === 'head') this.#socket.end(() => this.#socket.destroy())
    else this.#socket.destroy()
  }

  /** No request after the present one. */
  drain(): void {
    this.#lastRequest = true
    const isIdle = this.#state === 'head' && this.#head.isEmpty && this.#inputBytes === 0
    // A raw connection has no end of its own to wait for.
    if (isIdle || this.#state === 'tunnel') this.#socket.destroy()
  }

  destroy(): void {
    this.#socket.destroy()
  }

  readBody(): void {
    if (this.#bodyDone || this.#bodyOpen) return
    this.#bodyOpen = true
    this.#deadline = Date.now() + this.#deps.limits.bodyMs
    this.#pump()
  }

  pauseBody(): void {
    this.#bodyOpen = false
    this.#deadline = Number.POSITIVE_INFINITY
  }

  informational(head: ResponseHead): void {
    if (this.#request?.minorVersion === 1) this.#output.add(informationalHead(head))
  }

  head(head: ResponseHead): void {
    const old = this.#request?.minorVersion === 0
    const { kind } = head.body
    this.#framing = kind === 'chunked' || kind === 'close' ? (old ? 'close' : 'chunked') : kind
    if (this.#request?.close) this.#lastRequest = true
    this.#output.add(answerHead(head, this.#framing, this.#lastRequest))
  }

  data(bytes: Buffer): void {
    if (this.#framing === 'chunked') this.#output.addChunk(bytes)
    else this.#output.add(bytes)
  }

  end(trailers: readonly Field[]): void {
    if (this.#framing === 'chunked') {
      let text = '0\r\n'
      for (const { name, value } of trailers) text += `${name}: ${value}\r\n`
      this.#output.add(`${text}\r\n`)
    }
    this.#ended = true
  }

  flush(): boolean {
    const flows = this.#output.flush()
    if (this.#ended) this.#finishRequest()
    return flows
  }

  answer(answer: OwnAnswer): void {
    if (this.#request === undefined || this.#state !== 'request') return
    if (this.#request.close || !this.#bodyDone) this.#lastRequest = true
    this.#output.add(ownAnswerText(answer, this.#request.method, this.#lastRequest))
    this.#ended = true
    this.flush()
  }

  cut(): void {
    this.#exchange = undefined
    this.#state = 'closed'
    // Where the end of the connection is the end of the body, only a reset says that it is not whole; TLS says so by itself.
    if (this.#framing === 'close' && !this.#deps.secure) this.#socket.resetAndDestroy()
    else this.#socket.destroy()
  }

  switchProtocol(head: ResponseHead): { readonly socket: Duplex; readonly sent: Buffer } {
    const socket = this.#socket
    this.#output.add(informationalHead(head))
    this.#output.flush()
    this.#state = 'tunnel'
    this.#exchange = undefined
    socket.off('data', this.#onData)
    socket.off('end', this.#onEnd)
    socket.off('drain', this.#onDrain)
    const sent = Buffer.concat(this.#input)
    this.#input = []
    this.#inputBytes = 0
    return { socket, sent }
  }

  readonly #onData = (bytes: Buffer): void => {
    if (this.#state === 'closing') {
      this.#ignored += bytes.length
      if (this.#ignored > maxIgnoredBytes) this.#socket.destroy()
      return
    }
    if (this.#state === 'closed') return
    this.#input.push(bytes)
    this.#inputBytes += bytes.length
    this.#pump()
  }

  readonly #onEnd = (): void => {
    if (this.#state === 'request') this.#gone()
    this.#socket.destroySoon()
  }

  readonly #onError = (): void => {
    this.#socket.destroy()
  }

  readonly #onClose = (): void => {
    if (this.#state === 'request') this.#gone()
    this.#state = 'closed'
    this.#input = []
    this.#deps.onClosed()
  }

  readonly #onDrain = (): void => this.#exchange?.clientDrained()

  #gone(): void {
    const exchange = this.#exchange
    this.#exchange = undefined
    this.#state = 'closed'
    exchange?.clientGone()
  }

  /** Uses what has come as far as it can be used now. */
  #pump(): void {
    if (this.#pumping) return
    this.#pumping = true
    try {
      while (this.#inputBytes > 0 && this.#step()) {}
    } catch (error) {
      if (!(error instanceof WireError)) throw error
      this.#refuse(error)
    } finally {
      this.#pumping = false
    }
    const full = this.#inputBytes > maxInputBytes
    if (full !== this.#socket.isPaused()) full ? this.#socket.pause() : this.#socket.resume()
  }

  #step(): boolean {
    if (this.#state === 'head') {
      const bytes = this.#shift()
      if (this.#head.isEmpty) this.#deadline = Date.now() + this.#deps.limits.headMs
      const taken = this.#head.take(bytes)
      if (taken === undefined) return true
      this.#unshift(bytes, taken.next)
      this.#begin(parseRequestHead(taken.head))
      return true
    }
    if (this.#state !== 'request' || !this.#bodyOpen) return false
    const bytes = this.#shift()
    this.#unshift(bytes, this.#readBody(bytes))
    this.#exchange?.bodyFlush()
    return true
  }

  #begin(head: RequestHead): void {
    const { serverName, secure, address } = this.#deps
    if (serverName !== undefined && serverName.toLowerCase() !== head.host.name) throw new WireError(421, 'Host is not the name this connection was made for')
    this.#state = 'request'
    this.#request = head
    this.#ended = false
    this.#framing = 'none'
    this.#bodyDone = head.body.kind === 'none' || (head.body.kind === 'length' && head.body.length === 0)
    this.#bodyOpen = false
    this.#remaining = head.body.kind === 'length' ? head.body.length : 0
    this.#chunks = head.body.kind === 'chunked' ? new ChunkedReader() : undefined
    this.#deadline = Number.POSITIVE_INFINITY
    const { method, target, hostText, host, fields, connection, upgrade, expectsContinue, body } = head
    this.#exchange = this.#deps.start(this, { method, target, hostText, host, fields, connection, upgrade, expectsContinue, body, secure, client: address })
  }

  /** Returns where in `bytes` the body stopped. Throws WireError. */
  #readBody(bytes: Buffer): number {
    const exchange = this.#exchange
    if (exchange === undefined) return bytes.length
    this.#deadline = Date.now() + this.#deps.limits.bodyMs
    if (this.#chunks === undefined) {
      const take = Math.min(this.#remaining, bytes.length)
      exchange.bodyData(take === bytes.length ? bytes : bytes.subarray(0, take))
      this.#remaining -= take
      if (this.#remaining === 0) this.#endBody([])
      return take
    }
    return this.#chunks.read(bytes, 0, { data: (chunk) => exchange.bodyData(chunk), end: (trailers) => this.#endBody(trailers) })
  }

  #endBody(trailers: readonly Field[]): void {
    this.#bodyDone = true
    this.#bodyOpen = false
    this.#deadline = Number.POSITIVE_INFINITY
    this.#exchange?.bodyEnd(trailers)
  }

  #finishRequest(): void {
    this.#exchange = undefined
    this.#request = undefined
    this.#ended = false
    if (this.#lastRequest || !this.#bodyDone) {
      this.#close()
      return
    }
    this.#state = 'head'
    this.#deadline = Date.now() + this.#deps.limits.keepAliveMs
    if (this.#inputBytes > 0) this.#pump()
  }

  /** Nothing of what was refused went on; what came before it was answered. */
  #refuse(error: WireError): void {
    if (this.#state === 'closed' || this.#state === 'closing') return
    const exchange = this.#exchange
    this.#exchange = undefined
    exchange?.clientGone()
    if (this.#framing !== 'none' && this.#state === 'request') {
      this.cut()
      return
    }
    const code = error.status === 408 ? 'request_timeout' : error.status === 405 ? 'method_not_allowed' : error.status === 431 ? 'too_large' : 'bad_request'
    this.#output.add(ownAnswerText(jsonAnswer(error.status, { error: error.message, code }), 'GET', true))
    this.#output.flush()
    this.#close()
  }

  #close(): void {
    this.#state = 'closing'
    this.#input = []
    this.#inputBytes = 0
    this.#deadline = Date.now() + ignoreMs
    this.#socket.end()
    if (this.#socket.isPaused()) this.#socket.resume()
  }

  #shift(): Buffer {
    const bytes = this.#input.shift() ?? noBytes
    this.#inputBytes -= bytes.length
    return bytes
  }

  #unshift(bytes: Buffer, from: number): void {
    if (from >= bytes.length || this.#state === 'closing' || this.#state === 'closed') return
    const rest = from === 0 ? bytes : bytes.subarray(from)
    this.#input.unshift(rest)
    this.#inputBytes += rest.length
  }
}

const noBytes = Buffer.alloc(0)
