import { randomBytes } from 'node:crypto'
import { type Duplex, duplexPair } from 'node:stream'
import {
  type EgressPolicy,
  type ExecRequest,
  MagsError,
  type OutputSink,
  type ProgramRequest,
  type RefusedConnection,
  type RunningProgram,
  type RunningSandbox,
  type SandboxLease,
  type SandboxSpec,
  type ScriptExit,
  type ScriptSpec,
  type WorkspaceSaved,
} from '@mags/protocol'
import { FakeFiles } from './fake-files.ts'
import type { FakeHost } from './fake-host.ts'
import { startFakeProgram } from './fake-program.ts'
import { type FakeBehaviour, type FakeScript, interpret } from './fake-script.ts'

/** A sandbox of a {@link FakeHost}. */
export class FakeSandbox implements RunningSandbox {
  readonly sandboxId = randomBytes(6).toString('hex')
  readonly isolation = 'container'
  readonly attachMs = 0.1
  readonly files: FakeFiles
  readonly spec: SandboxSpec
  /** What its servers do with a connection, by port. */
  readonly servers = new Map<number, (socket: Duplex) => void>()
  state: 'awake' | 'asleep' | 'hibernated' = 'awake'
  /** How often it went to sleep and woke. */
  sleeps = 0
  wakes = 0
  egress: EgressPolicy | undefined
  sentBytes = 0
  /** Runs the init of its image, until it powers off. */
  boots = false
  readonly #host: FakeHost
  readonly #behaviour: FakeBehaviour
  readonly #stallListeners = new Set<(words: string | undefined) => void>()
  readonly #refusedListeners = new Set<(refused: RefusedConnection) => void>()
  readonly #exited = Promise.withResolvers<ScriptExit>()
  readonly #gone = Promise.withResolvers<void>()
  /** What it has from `first` on: what came before is of the sandbox it is a copy of. */
  readonly #sent = { stdout: { chunks: [] as Buffer[], length: 0, first: 0 }, stderr: { chunks: [] as Buffer[], length: 0, first: 0 } }
  #signals: ((signal: number) => void)[] = []
  #sink: OutputSink | undefined
  #exit: ScriptExit | undefined
  destroyed = 0

  constructor(host: FakeHost, behaviour: FakeBehaviour, spec: SandboxSpec, files?: FakeFiles) {
    this.#host = host
    this.#behaviour = behaviour
    this.spec = spec
    this.egress = spec.egress
    const own = host.workspaces.open(spec)
    this.files = new FakeFiles(files?.tree ?? own)
  }

  get exited(): Promise<ScriptExit> {
    return this.#exited.promise
  }

  get gone(): Promise<void> {
    return this.#gone.promise
  }

  /** Starts its script. */
  begin(script: ScriptSpec, sink: OutputSink): void {
    this.#sink = sink
    this.boots = script.init === true
    if (this.boots) return
    const run = async () =>
      this.#behaviour({
        script: script.script,
        environment: script.environment,
        files: this.files,
        stdout: (bytes) => this.write('stdout', bytes),
        stderr: (bytes) => this.write('stderr', bytes),
        signalled: () => this.#signalled(),
      })
    void run().then((exit) => this.end(exit))
  }

  /** The script of another one goes on in this copy of it; the test says how. */
  takeOver(source: FakeSandbox, sink: OutputSink): void {
    this.#sink = sink
    for (const name of ['stdout', 'stderr'] as const) {
      const { length } = source.#sent[name]
      Object.assign(this.#sent[name], { first: length, length })
    }
    if (source.#exit !== undefined) this.end(source.#exit)
  }

  /** Output as a program of the sandbox writes it, also after the script's end. */
  async write(source: 'stdout' | 'stderr', bytes: string | Uint8Array): Promise<undefined | 'discard'> {
    const sent = this.#sent[source]
    const offset = sent.length
    const chunk = Buffer.from(bytes as string)
    sent.chunks.push(chunk)
    sent.length += chunk.length
    return await this.#sink?.({ source, offset, bytes: Buffer.from(chunk) })
  }

  /** A new server took over: it gets what the former one had not made safe. */
  resume(resume: { stdout: number; stderr: number }, sink: OutputSink): void {
    this.#sink = sink
    for (const source of ['stdout', 'stderr'] as const) {
      const { chunks, first } = this.#sent[source]
      const offset = Math.max(resume[source], first)
      const rest = Buffer.concat(chunks).subarray(offset - first)
      if (rest.length > 0) void sink({ source, offset, bytes: rest })
    }
  }

  end(exit: ScriptExit): void {
    this.#exit ??= exit
    this.#exited.resolve(this.#exit)
  }

  async signal(signal: number): Promise<void> {
    for (const listener of this.#signals.splice(0)) listener(signal)
  }

  async exec(
    request: ExecRequest,
    onOutput: (source: 'stdout' | 'stderr', bytes: Uint8Array) => Promise<void> | void,
    abort?: AbortSignal,
  ): Promise<ScriptExit & { timedOut: boolean }> {
    this.#requireAwake('exec')
    if (this.boots && this.#host.heedsPowerOff && request.command.at(-1)?.includes('poweroff')) this.end({ kind: 'exited', exitCode: 0, halted: 'powered-off' })
    if (this.boots && request.command.at(-1)?.includes('is-system-running')) await Promise.race([this.#host.booted, this.exited])
    const script: FakeScript = {
      script: request.command.at(-1) ?? '',
      environment: { ...request.environment, STDIN: await readText(request.stdin) },
      files: this.files,
      stdout: async (bytes) => void (await onOutput('stdout', Buffer.from(bytes as string))),
      stderr: async (bytes) => void (await onOutput('stderr', Buffer.from(bytes as string))),
      signalled: () => new Promise(() => undefined),
    }
    const stop = Promise.withResolvers<ScriptExit & { timedOut: boolean }>()
    const timer = setTimeout(() => stop.resolve({ kind: 'signalled', exitCode: 137, timedOut: true }), request.timeoutMs)
    abort?.addEventListener('abort', () => stop.resolve({ kind: 'signalled', exitCode: 137, timedOut: false }), { once: true })
    try {
      return await Promise.race([interpret(script).then((exit) => ({ ...exit, timedOut: false })), stop.promise])
    } finally {
      clearTimeout(timer)
    }
  }

  start(request: ProgramRequest, onOutput: (source: 'stdout' | 'stderr', bytes: Uint8Array) => Promise<void> | void): RunningProgram {
    this.#requireAwake('start')
    return startFakeProgram(request, onOutput, this)
  }

  async connect(port: number): Promise<Duplex> {
    this.#requireAwake('connect')
    const serve = this.servers.get(port)
    if (serve === undefined) throw new MagsError('not_listening', `nothing listens on port ${port} in the sandbox`)
    const [ours, theirs] = duplexPair()
    serve(theirs)
    return ours
  }

  async sleep(): Promise<void> {
    await this.#host.beforeSleep(this)
    this.#requireThere()
    if (this.state !== 'awake') return
    this.state = 'asleep'
    this.sleeps++
  }

  async wake(): Promise<void> {
    await this.#host.beforeWake(this)
    this.#requireThere()
    if (this.state === 'awake') return
    this.state = 'awake'
    this.wakes++
  }

  async hibernate(): Promise<boolean> {
    await this.#host.beforeHibernate(this)
    this.#requireThere()
    if (this.state === 'awake') throw new MagsError('internal', 'only a sleeping sandbox hibernates')
    if (this.#host.hibernates) this.state = 'hibernated'
    return this.#host.hibernates
  }

  async setEgress(policy: EgressPolicy): Promise<void> {
    this.#requireThere()
    this.egress = policy
  }

  get egressTotal(): Promise<number> {
    return this.gone.then(() => this.egressBytes())
  }

  async egressBytes(): Promise<number> {
    return this.sentBytes
  }

  watchRefused(listener: (refused: RefusedConnection) => void): () => Promise<void> {
    this.#refusedListeners.add(listener)
    return async () => void this.#refusedListeners.delete(listener)
  }

  watchStalls(listener: (words: string | undefined) => void): void {
    this.#stallListeners.add(listener)
  }

  /** Its machine stands still, or goes on. */
  stall(words: string | undefined): void {
    for (const listener of this.#stallListeners) listener(words)
  }

  /** A connection of one of its programs was not allowed. */
  refuse(refused: RefusedConnection): void {
    for (const listener of this.#refusedListeners) listener(refused)
  }

  async fork(spec: SandboxSpec, abort?: AbortSignal): Promise<{ readonly lease: SandboxLease; readonly withMemory: boolean }> {
    this.#requireAwake('fork')
    await this.#host.beforeFork(spec, abort)
    abort?.throwIfAborted()
    const { base: _, ...own } = spec
    return { lease: this.#host.lease(own, 0, this), withMemory: this.#host.forksMemory }
  }

  async saveWorkspace({ final }: { readonly final: boolean }): Promise<WorkspaceSaved> {
    if (this.spec.workspace === undefined) throw new MagsError('internal', 'the sandbox has no workspace')
    this.#requireThere()
    this.#requireAwake('saveWorkspace')
    if (final) this.end({ kind: 'signalled', exitCode: 137 })
    return await this.#host.workspaces.save(this.spec.workspace, this.files)
  }

  async keepsUnsaved(): Promise<boolean> {
    return this.#host.workspaces.keepsUnsaved
  }

  #requireThere(): void {
    if (this.destroyed > 0) throw new MagsError('sandbox_failed', 'the sandbox is gone')
  }

  /** What the server must never ask of a sandbox that sleeps. */
  #requireAwake(what: string): void {
    this.#requireThere()
    if (this.state !== 'awake') throw new MagsError('internal', `${what}: the sandbox sleeps`)
  }

  async destroy(): Promise<void> {
    if (this.destroyed === 0 && this.spec.workspace) this.#host.workspaces.leave(this.spec.workspace, this.files)
    this.destroyed++
    this.end({ kind: 'sandbox-lost', exitCode: 137 })
    this.#gone.resolve()
  }

  #signalled(): Promise<number> {
    return new Promise((resolve) => this.#signals.push(resolve))
  }
}

async function readText(input: Uint8Array | AsyncIterable<Uint8Array> | undefined): Promise<string> {
  if (input === undefined || input instanceof Uint8Array) return Buffer.from(input ?? []).toString('utf8')
  const chunks: Uint8Array[] = []
  for await (const chunk of input) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks).toString('utf8')
}
