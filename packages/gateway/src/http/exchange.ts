import type { Duplex } from 'node:stream'
import { type GatewayTarget, MagsError } from '@mags/protocol'
import { AbortSlot } from './abort-slot.ts'
import { admit, logIn, loginPath } from './access/admit.ts'
import { errorAnswer, failureAnswer } from './answers/error-answer.ts'
import type { OwnAnswer } from './answers/own-answer.ts'
import type { ClientSide, RequestEvents } from './client/client-side.ts'
import type { HttpDeps } from './http-deps.ts'
import type { JobUser, OpenJob } from './jobs/open-job.ts'
import { TunnelUse } from './jobs/tunnel-use.ts'
import { ownPath } from './own-paths.ts'
import { type ClientRequest, fieldOf, isRepeatable } from './request/client-request.ts'
import { upstreamHead, type Withheld } from './request/upstream-head.ts'
import { tunnel } from './tunnel.ts'
import { reachJob } from './upstream/reach-job.ts'
import type { AnswerSink, UpstreamConnection } from './upstream/upstream-connection.ts'
import type { Field } from './wire/fields.ts'
import type { ResponseHead } from './wire/response-head.ts'
import { WireError } from './wire/wire-error.ts'

const maxFormBytes = 16_384

/**
 * One request, from its head to the end of its answer.
 *
 * routing -> sent (request on its way) -> answering (final head passed on) -> over; sent -> over as a tunnel with 101. routing -> form (the login page's body is read) -> over. Every state -> over by an answer of our own
 * (before `answering`), a cut (in it), or when the client is gone. Over: the job is released, and the connection to the sandbox is idle again or closed.
 */
export class Exchange implements RequestEvents, AnswerSink, JobUser {
  readonly #deps: HttpDeps
  readonly #client: ClientSide
  readonly #request: ClientRequest
  readonly #abort = new AbortSlot()
  #state: 'routing' | 'form' | 'sent' | 'answering' | 'over' = 'routing'
  #target: GatewayTarget | undefined
  #withheld: Withheld | undefined
  #job: OpenJob | undefined
  #upstream: UpstreamConnection | undefined
  #reused = false
  #bodySent: boolean
  #deadline = Number.POSITIVE_INFINITY
  #form: Buffer[] = []
  #formBytes = 0

  constructor(deps: HttpDeps, client: ClientSide, request: ClientRequest) {
    this.#deps = deps
    this.#client = client
    this.#request = request
    this.#bodySent = request.body.kind === 'none' || (request.body.kind === 'length' && request.body.length === 0)
    this.#route().catch((error: unknown) => this.#fail(error))
  }

  async #route(): Promise<void> {
    const { directory } = this.#deps
    const request = this.#request
    const own = await ownPath(this.#deps, request)
    if (own !== undefined) return this.#answer(own)
    const target = await directory.findByHost(request.host.name)
    if (this.#state === 'over') return
    if (target === undefined) return this.#answer(errorAnswer(request, 404, 'not_found', `no sandbox has the address ${request.host.name}`))
    this.#target = target
    if (request.target.startsWith('/.mags/')) return this.#reserved()
    if (target.visibility === 'public' && !request.target.includes('mags_token')) this.#withheld = this.#deps.publicWithheld
    else {
      const admitted = await admit(this.#deps, target, request)
      if (this.#isOver()) return
      if ('status' in admitted) return this.#answer(admitted)
      this.#withheld = admitted
    }
    if (target.state === 'over')
      return this.#answer(errorAnswer(request, 410, 'job_not_running', `the sandbox at ${request.host.name} is over and has no server any more`))
    const job = this.#deps.jobs.hold(target, this)
    this.#job = job
    await this.#connect(job, target, false)
  }

  #isOver(): boolean {
    return this.#state === 'over'
  }

  async #connect(job: OpenJob, target: GatewayTarget, fresh: boolean): Promise<void> {
    const idle = fresh || job.lease === undefined ? undefined : job.idle.take(target.port, isRepeatable(this.#request))
    if (idle !== undefined) return this.#send(idle, true)
    const reached = await reachJob({ ...this.#deps.limits, logger: this.#deps.logger }, job, target, this.#request, this.#abort)
    if ('status' in reached) return this.#answer(reached)
    if (this.#state === 'over') return reached.destroy()
    this.#send(reached, false)
  }

  #send(upstream: UpstreamConnection, reused: boolean): void {
    const request = this.#request
    this.#upstream = upstream
    this.#reused = reused
    this.#state = 'sent'
    upstream.send({ method: request.method, upgrade: request.upgrade !== undefined }, this)
    upstream.output.add(upstreamHead(request, this.#withheld ?? this.#deps.publicWithheld))
    this.#deadline = Date.now() + this.#deps.limits.headTimeoutMs
    if (!this.#bodySent) this.#client.readBody()
    upstream.output.flush()
  }

  bodyData(bytes: Buffer): void {
    if (this.#state === 'form') {
      this.#formData(bytes)
      return
    }
    const output = this.#upstream?.output
    if (output === undefined) return
    if (this.#request.body.kind === 'chunked') output.addChunk(bytes)
    else output.add(bytes)
  }

  bodyEnd(trailers: readonly Field[]): void {
    this.#bodySent = true
    if (this.#state === 'form') return void this.#logIn().catch((error: unknown) => this.#fail(error))
    if (this.#request.body.kind !== 'chunked') return
    let end = '0\r\n'
    for (const { name, value } of trailers) end += `${name}: ${value}\r\n`
    this.#upstream?.output.add(`${end}\r\n`)
  }

  bodyFlush(): void {
    const { output } = this.#upstream ?? {}
    if (output === undefined) return
    if (this.#state === 'sent') this.#deadline = Date.now() + this.#deps.limits.headTimeoutMs
    if (!output.flush() && !this.#bodySent) this.#client.pauseBody()
  }

  clientDrained(): void {
    if (this.#state === 'answering') this.#deadline = Number.POSITIVE_INFINITY
    this.#upstream?.resume()
  }

  clientGone(): void {
    if (this.#state === 'over') return
    this.#close(false)
  }

  tick(now: number): void {
    if (now < this.#deadline || this.#state === 'over') return
    this.#deadline = Number.POSITIVE_INFINITY
    if (this.#state !== 'sent') {
      this.#close(false)
      this.#client.cut()
      return
    }
    const words = `the server in ${this.#target?.name} did not begin an answer within ${this.#deps.limits.headTimeoutMs / 1000} s`
    this.#answer(errorAnswer(this.#request, 504, 'request_timeout', words))
  }

  onInformational(head: ResponseHead): void {
    if (head.status !== 100 || this.#request.expectsContinue) this.#client.informational(head)
  }

  onHead(head: ResponseHead): void {
    this.#state = 'answering'
    this.#deadline = Number.POSITIVE_INFINITY
    this.#client.head(head)
  }

  onData(bytes: Buffer): void {
    if (this.#state === 'answering') this.#client.data(bytes)
  }

  onEnd(trailers: readonly Field[], reusable: boolean): void {
    if (this.#state !== 'answering') return
    // Released before the client hears the end: its next request finds the connection.
    this.#close(reusable && this.#bodySent)
    this.#client.end(trailers)
  }

  onFlush(): void {
    if (this.#client.flush() || this.#upstream === undefined) return
    this.#upstream.pause()
    if (this.#state === 'answering') this.#deadline = Date.now() + this.#deps.limits.bodyMs
  }

  onDrain(): void {
    if (this.#state === 'sent') this.#deadline = Date.now() + this.#deps.limits.headTimeoutMs
    if (!this.#bodySent) this.#client.readBody()
  }

  onSwitched(head: ResponseHead, socket: Duplex, rest: Buffer): void {
    this.#upstream = undefined
    this.#state = 'over'
    const client = this.#client.switchProtocol(head)
    const job = this.#job
    this.#job = undefined
    const target = this.#target
    if (job === undefined || target === undefined) return
    const { jobs, limits } = this.#deps
    const use = new TunnelUse(jobs, job, this, target, limits.quietMs, () => socket.destroy())
    const options = { halfOpenMs: limits.halfOpenMs, onTraffic: () => use.pass(), onClosed: () => use.close() }
    tunnel({ socket: client.socket, first: client.sent }, { socket, first: rest }, options)
  }

  jobGone(): void {
    if (this.#state === 'answering') {
      this.#close(false)
      this.#client.cut()
    } else this.#answer(errorAnswer(this.#request, 502, 'sandbox_failed', `the sandbox of ${this.#target?.name} ended before it answered`))
  }

  onFailed(error: Error, silent: boolean): void {
    this.#upstream = undefined
    const { name, port } = this.#target ?? { name: 'the sandbox', port: 0 }
    if (this.#state === 'answering') {
      this.#close(false)
      this.#client.cut()
      return
    }
    if (this.#state !== 'sent') return
    const job = this.#job
    if (silent && this.#reused && job !== undefined && this.#target !== undefined && isRepeatable(this.#request)) {
      this.#state = 'routing'
      this.#connect(job, this.#target, true).catch((fault: unknown) => this.#fail(fault))
      return
    }
    const words = error instanceof WireError ? `sent an answer that is not HTTP: ${error.message}` : 'closed the connection without an answer'
    this.#answer(errorAnswer(this.#request, 502, 'sandbox_failed', `the server on port ${port} in ${name} ${words}`))
  }

  /** Paths under /.mags/ never reach a sandbox. */
  #reserved(): void {
    const request = this.#request
    if (request.target !== loginPath || this.#target?.visibility !== 'token') {
      this.#answer(errorAnswer(request, 404, 'not_found', 'there is nothing at this address of the gateway'))
      return
    }
    const type = fieldOf(request.fields, 'content-type') ?? ''
    if (request.method !== 'POST' || this.#bodySent || !type.startsWith('application/x-www-form-urlencoded')) {
      this.#answer(errorAnswer(request, 405, 'method_not_allowed', 'the form is posted here', [['Allow', 'POST']]))
      return
    }
    this.#state = 'form'
    this.#client.readBody()
  }

  #formData(bytes: Buffer): void {
    this.#formBytes += bytes.length
    if (this.#formBytes > maxFormBytes) {
      this.#answer(errorAnswer(this.#request, 413, 'too_large', 'the form is too large'))
      return
    }
    this.#form.push(Buffer.from(bytes))
  }

  async #logIn(): Promise<void> {
    if (this.#target === undefined) return
    this.#answer(await logIn(this.#deps, this.#target, this.#request, Buffer.concat(this.#form).toString('latin1')))
  }

  #fail(error: unknown): void {
    if (this.#state === 'over') return
    if (!(error instanceof MagsError)) this.#deps.logger.error({ err: error, host: this.#request.host.name }, 'a request failed')
    if (this.#state === 'answering') {
      this.#close(false)
      this.#client.cut()
    } else this.#answer(failureAnswer(this.#request, error, this.#target?.name ?? 'the sandbox'))
  }

  #answer(answer: OwnAnswer): void {
    if (this.#state === 'over') return
    this.#close(false)
    this.#client.answer(answer)
  }

  #close(reusable: boolean): void {
    this.#state = 'over'
    this.#deadline = Number.POSITIVE_INFINITY
    const upstream = this.#upstream
    const job = this.#job
    this.#upstream = undefined
    this.#job = undefined
    this.#abort.run()
    if (upstream !== undefined) {
      if (reusable && job !== undefined && this.#target !== undefined) job.idle.give(this.#target.port, upstream)
      else upstream.destroy()
    }
    job?.release(this)
  }
}
