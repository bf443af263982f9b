import { MagsError } from '@mags/protocol'
import type { AgentExecRequest, AgentExit, AgentOutput, AgentStream } from '../../agent/connection.ts'
import { exitOf, type FakeMachine, type FakeProgram } from './fake-machine.ts'

interface FakeOutput {
  /** Bytes acknowledged; `unsafe` follows them. */
  taken: number
  unsafe: Buffer
  safe: number
  discarding: boolean
  dropped: number
}

/** A program on a {@link FakeMachine}, as the program sees it (`request`, `stdin`, `write`, `nextSignal`) and as the agent does (the rest). */
export class FakeProcess {
  readonly machine: FakeMachine
  readonly channel: number
  readonly request: AgentExecRequest
  readonly pid: Promise<number>
  readonly exit: Promise<AgentExit>
  readonly eof: Promise<{ readonly droppedBytes: number }>
  readonly #started = Promise.withResolvers<number>()
  readonly #exited = Promise.withResolvers<AgentExit>()
  readonly #ended = Promise.withResolvers<{ readonly droppedBytes: number }>()
  readonly #outputs: Record<AgentStream, FakeOutput> = { stdout: emptyOutput(), stderr: emptyOutput() }
  readonly #stdin: Buffer[] = []
  readonly #signals: number[] = []
  readonly #daemons: Promise<unknown>[] = []
  readonly #wakers = new Set<() => void>()
  #stdinEnded: boolean
  #consumer: AgentOutput | undefined
  /** Resolves when the consumer is gone: whatever it was offered may never be settled. */
  #abandoned = Promise.withResolvers<undefined>()
  #closed = false
  #finished = false

  constructor(machine: FakeMachine, channel: number, request: AgentExecRequest) {
    this.machine = machine
    this.channel = channel
    this.pid = this.#started.promise
    this.pid.catch(() => undefined)
    this.request = request
    this.#stdinEnded = !request.stdin
    this.exit = this.#exited.promise
    this.eof = this.#ended.promise
  }

  /** Writes one piece and settles when the host took it; a reader that is not there or a freeze holds it up, as a full pipe would. */
  async write(stream: AgentStream, bytes: string | Uint8Array): Promise<void> {
    const output = this.#outputs[stream]
    const piece = Buffer.from(bytes as string)
    await this.machine.turn()
    if (output.discarding) {
      output.dropped += piece.length
      return
    }
    output.unsafe = piece
    while (output.unsafe.length > 0) {
      await this.#until(() => this.#consumer !== undefined)
      await this.machine.turn()
      await this.#offer(stream, output)
    }
  }

  /** The next piece of standard input; undefined at its end. */
  async readStdin(): Promise<Buffer | undefined> {
    await this.#until(() => this.#stdin.length > 0 || this.#stdinEnded)
    await this.machine.turn()
    return this.#stdin.shift()
  }

  async nextSignal(): Promise<number> {
    await this.#until(() => this.#signals.length > 0)
    await this.machine.turn()
    return this.#signals.shift() as number
  }

  /** Goes on after the program's end and holds the outputs open. */
  leaveBehind(daemon: Promise<unknown>) {
    this.#daemons.push(daemon)
  }

  get exited(): boolean {
    return this.#finished
  }

  async run(program: FakeProgram) {
    await this.machine.turn()
    const begun = program(this)
    if (typeof begun === 'object' && 'notStarted' in begun) this.#started.reject(new MagsError('sandbox_failed', `the program did not start: ${begun.message}`))
    else this.#started.resolve(100 + this.channel)
    const outcome = await begun
    await this.machine.turn()
    this.#finished = true
    this.#exited.resolve(exitOf(outcome))
    await Promise.all(this.#daemons)
    this.#ended.resolve({ droppedBytes: this.#outputs.stdout.dropped + this.#outputs.stderr.dropped })
  }

  /** Connects the host; what it has as safe is not sent again. */
  consume(output: AgentOutput, safe: { stdout: number; stderr: number }) {
    this.#outputs.stdout.safe = safe.stdout
    this.#outputs.stderr.safe = safe.stderr
    this.#consumer = output
    this.#wake()
  }

  /** The connection is gone: what was offered and not taken will be offered again. */
  abandon() {
    this.#consumer = undefined
    this.#abandoned.resolve(undefined)
    this.#abandoned = Promise.withResolvers<undefined>()
  }

  putStdin(bytes: Uint8Array) {
    this.#stdin.push(Buffer.from(bytes))
    this.#wake()
  }

  endStdin() {
    this.#stdinEnded = true
    this.#wake()
  }

  signal(signal: number) {
    this.#signals.push(signal)
    this.#wake()
  }

  /** A program that looks for signals sees a SIGKILL; nobody hears of the others again. */
  close() {
    this.#closed = true
    this.abandon()
    this.signal(9)
    this.machine.processes.delete(this.channel)
  }

  async #offer(stream: AgentStream, output: FakeOutput) {
    const skipped = Math.min(Math.max(0, output.safe - output.taken), output.unsafe.length)
    output.taken += skipped
    output.unsafe = output.unsafe.subarray(skipped)
    const consumer = this.#consumer
    if (output.unsafe.length === 0 || consumer === undefined) return
    const piece = output.unsafe
    const verdict = await Promise.race([consumer(stream, output.taken, Buffer.from(piece)), this.#abandoned.promise])
    // Settled after a detach: the next connection decides.
    if (this.#consumer !== consumer || this.#closed) return
    output.taken += piece.length
    output.unsafe = Buffer.alloc(0)
    if (verdict === 'discard') output.discarding = true
  }

  async #until(condition: () => boolean) {
    while (!condition()) await new Promise<void>((resolve) => this.#wakers.add(resolve))
  }

  #wake() {
    const wakers = [...this.#wakers]
    this.#wakers.clear()
    for (const wake of wakers) wake()
  }
}

function emptyOutput(): FakeOutput {
  return { taken: 0, unsafe: Buffer.alloc(0), safe: 0, discarding: false, dropped: 0 }
}
