import { MagsError } from '@mags/protocol'
import type { AgentChannel, AgentWire } from './agent-channel.ts'
import { AgentProtocolError } from './agent-protocol-error.ts'
import type { AgentExec, AgentExit, AgentOutput } from './connection.ts'
import type { HelloChannel } from './decode-frames.ts'
import { encodeClose, encodeResize, encodeSignal } from './encode-frames.ts'
import { windowMax } from './frame-constants.ts'
import { ReceivedStream } from './received-stream.ts'
import { SentStream } from './sent-stream.ts'

interface AgentExecOptions {
  readonly wire: AgentWire
  readonly channel: number
  readonly windowBytes?: number
  readonly output?: AgentOutput
  /** Set for a channel that outlived a connection; it is parked until `resume`. */
  readonly resumed?: HelloChannel
}

/**
 * A program in the sandbox.
 *
 *     starting ──OPENED──▶ running ──EXIT──▶ exited ──both EOF──▶ finished        `pid`, `exit`, `eof` resolve in this order
 *        └──EXIT not-started──▶ finished
 *     any ──close, failed output callback, connection lost──▶ gone                what has not resolved rejects
 *
 * `exit` and `eof` wait until the output that came before them was taken, even when the connection is lost meanwhile (but not when we closed it).
 */
export class ChannelExec implements AgentExec, AgentChannel {
  readonly channel: number
  readonly #wire: AgentWire
  readonly #stdout: ReceivedStream
  readonly #stderr: ReceivedStream
  readonly #stdin: SentStream
  readonly #pid = quiet(Promise.withResolvers<number>())
  readonly #exited = quiet(Promise.withResolvers<AgentExit>())
  readonly #eof = quiet(Promise.withResolvers<{ droppedBytes: number }>())
  #opened = false
  #exit: AgentExit | undefined
  /** Where the outputs stood when EXIT came. */
  #stdoutAtExit = 0
  #stderrAtExit = 0
  #lost: Error | undefined
  #over = false
  #parked: boolean

  constructor(options: AgentExecOptions) {
    const { wire, channel, resumed, output } = options
    this.channel = channel
    this.#wire = wire
    this.#parked = resumed !== undefined
    const shared = {
      wire,
      channel,
      windowBytes: options.windowBytes ?? windowMax,
      onProgress: () => this.#progress(),
      onFailed: (error: unknown) => this.#gone(error instanceof Error ? error : new Error(String(error)), true),
      ...(output ? { output } : {}),
    }
    this.#stdout = new ReceivedStream({ ...shared, name: 'stdout', start: resumed?.stdout.acked ?? 0 })
    this.#stderr = new ReceivedStream({ ...shared, name: 'stderr', start: resumed?.stderr.acked ?? 0 })
    this.#stdin = new SentStream(wire, channel, resumed?.received ?? 0)
    if (resumed && resumed.pid > 0) this.#pid.resolve(resumed.pid)
  }

  get pid(): Promise<number> {
    return this.#pid.promise
  }

  get exit(): Promise<AgentExit> {
    return this.#exited.promise
  }

  get eof(): Promise<{ readonly droppedBytes: number }> {
    return this.#eof.promise
  }

  get parked(): boolean {
    return this.#parked
  }

  resume(safe: { stdout: number; stderr: number }, output: AgentOutput) {
    this.#parked = false
    this.#stdout.resume(output, safe.stdout)
    this.#stderr.resume(output, safe.stderr)
  }

  writeStdin(bytes: Uint8Array): Promise<void> {
    return this.#stdin.write(bytes)
  }

  endStdin() {
    this.#stdin.end()
  }

  signal(signal: number) {
    if (!this.#over) this.#wire.send(encodeSignal(this.channel, signal))
  }

  resize(rows: number, cols: number) {
    if (!this.#over) this.#wire.send(encodeResize(this.channel, rows, cols))
  }

  close() {
    this.#gone(new MagsError('sandbox_failed', 'the program was closed before it ended'), true)
  }

  onOpened(pid: number) {
    if (this.#opened || this.#exit) throw new AgentProtocolError(`channel ${this.channel} opens twice`)
    this.#opened = true
    this.#pid.resolve(pid)
  }

  onExit(exit: AgentExit) {
    if (this.#exit) throw new AgentProtocolError(`channel ${this.channel} exits twice`)
    this.#exit = exit
    this.#stdoutAtExit = this.#stdout.received
    this.#stderrAtExit = this.#stderr.received
    if (exit.kind === 'not-started') this.#pid.reject(new MagsError('sandbox_failed', `the program did not start: ${exit.message}`))
    this.#stdin.fail(new MagsError('sandbox_failed', 'the program ended and reads no more input'))
    this.#progress()
  }

  onData(stream: number, offset: number, bytes: Buffer) {
    this.#stream(stream).data(offset, bytes)
  }

  onEof(stream: number, total: number, dropped: number) {
    this.#stream(stream).end(total, dropped)
  }

  onAck(total: number) {
    this.#stdin.acked(total)
  }

  onLost(error: Error, byUs: boolean) {
    if (byUs || this.#parked) this.#gone(error, false)
    else {
      this.#lost = error
      this.#pid.reject(error)
      this.#stdin.fail(error)
      this.#progress()
    }
  }

  #stream(stream: number): ReceivedStream {
    return stream === 1 ? this.#stdout : this.#stderr
  }

  #progress() {
    if (this.#over) return
    if (this.#exit && this.#stdout.taken >= this.#stdoutAtExit && this.#stderr.taken >= this.#stderrAtExit) this.#exited.resolve(this.#exit)
    if (!this.#stdout.drained || !this.#stderr.drained) return
    if (this.#exit?.kind === 'not-started' || (this.#stdout.ended && this.#stderr.ended)) {
      this.#eof.resolve({ droppedBytes: this.#stdout.dropped + this.#stderr.dropped })
    }
    if (this.#lost) this.#gone(this.#lost, false)
  }

  #gone(error: Error, tell: boolean) {
    if (this.#over) return
    this.#over = true
    this.#stdout.stop()
    this.#stderr.stop()
    this.#stdin.fail(error)
    this.#pid.reject(error)
    this.#exited.reject(error)
    this.#eof.reject(error)
    if (tell && !this.#lost) this.#wire.send(encodeClose(this.channel))
    this.#wire.forget(this.channel)
  }
}

/** A promise nobody looks at must not bring the process down when it rejects. */
function quiet<T>(resolvers: PromiseWithResolvers<T>): PromiseWithResolvers<T> {
  resolvers.promise.catch(() => undefined)
  return resolvers
}
