import { constants } from 'node:os'
import type { Duplex } from 'node:stream'
import {
  type EgressPolicy,
  type ExecRequest,
  type Isolation,
  MagsError,
  type OutputSink,
  type ProgramRequest,
  type RefusedConnection,
  type RunningProgram,
  type RunningSandbox,
  type SandboxFiles,
  type SandboxLease,
  type SandboxSpec,
  type ScriptExit,
  type ScriptSpec,
  type WorkspaceSaved,
} from '@mags/protocol'
import type { AgentExec, AgentExit } from '../agent/connection.ts'
import type { Sandbox, SandboxDeath } from '../drivers/driver.ts'
import type { SandboxEgress } from '../egress/sandbox-egress.ts'
import type { OpenWorkspace } from '../workspaces/local/open-workspace.ts'
import { bootRequest } from './boot-request.ts'
import { explainExit, type ProgramSandbox } from './explain-exit.ts'
import { placeFiles } from './place-files.ts'
import { AgentSandboxFiles } from './sandbox-files.ts'
import { sandboxEnvironment } from './script-environment.ts'
import { type SafeOutput, ScriptRun } from './script-run.ts'
import { startDirectory } from './start-directory.ts'
import { startProgram } from './start-program.ts'

type ExecOutput = (source: 'stdout' | 'stderr', bytes: Uint8Array) => Promise<void> | void

/** What a sandbox belongs to. */
export interface Surroundings {
  /** Of its image, for all its programs. */
  readonly environment: Readonly<Record<string, string>> | undefined
  readonly workspace: OpenWorkspace | undefined
  readonly egress: SandboxEgress
  readonly end: () => Promise<void>
  /** Hears when it falls asleep and when it is awake again. */
  readonly onAsleep: (asleep: boolean) => void
  /** See `RunningSandbox.fork`; nothing else changes the sandbox or its workspace meanwhile. */
  readonly fork: (spec: SandboxSpec, abort?: AbortSignal) => Promise<Forked>
}

export interface Forked {
  readonly lease: SandboxLease
  readonly withMemory: boolean
}

type Rest = 'awake' | 'asleep' | 'hibernated'

interface Change {
  readonly wish: 'awake' | 'asleep'
  readonly done: Promise<void>
}

/**
 * A sandbox that runs a job's script: the host's end of {@link RunningSandbox}.
 *
 *     running ──script's first process ended──▶ resting ──destroy──▶ gone
 *        └──────────────── destroy, death of the machine ───────────▶ gone
 *
 * Beside that it sleeps. Changes are made one after the other; each goes to what was wished last, so that of several at once the last one counts:
 *
 *     awake ──sleep──▶ asleep ──hibernate──▶ hibernated
 *       ▲───── wake ─────┴──────── wake ────────┘
 */
export class HostSandbox implements RunningSandbox {
  readonly exited: Promise<ScriptExit>
  readonly gone: Promise<void>
  readonly attachMs: number
  readonly files: SandboxFiles
  readonly #sandbox: Sandbox
  readonly #script: ScriptRun
  readonly #around: Surroundings
  #death: string | undefined
  #rest: Rest = 'awake'
  #wish: Change['wish'] = 'awake'
  #wished = Promise.withResolvers<void>()
  /** The change asked for last, while it is not made. */
  #change: Change | undefined
  #changes: Promise<unknown> = Promise.resolve()
  #saves: Promise<unknown> = Promise.resolve()
  #forks: Promise<unknown> = Promise.resolve()
  /** Why programs were cut off from us, while the sandbox is not dead. */
  #cut = Promise.withResolvers<SandboxDeath>()

  private constructor(sandbox: Sandbox, script: ScriptRun, attachMs: number, around: Surroundings) {
    this.#sandbox = sandbox
    this.#around = around
    this.#script = script
    this.attachMs = attachMs
    this.files = new AgentSandboxFiles({
      file: (request, output) => {
        this.#mustBeAwake()
        return sandbox.agent.file(request, output)
      },
    })
    this.gone = sandbox.died.then(({ reason }) => {
      this.#death = reason
      script.lost(reason)
    })
    this.exited = this.#explainScript()
  }

  /** Hands the script to an attached sandbox, or boots it, after its files. Rejects with MagsError 'not_available' when it cannot boot. */
  static async start(sandbox: Sandbox, script: ScriptSpec, sink: OutputSink, { attachMs, ...around }: Surroundings & { attachMs: () => number }) {
    if (script.files && script.files.length > 0) await placeFiles(new AgentSandboxFiles(sandbox.agent), script.files)
    const request = script.init
      ? await bootRequest(sandbox, script.environment)
      : { argv: ['/bin/sh'], script: script.script, env: sandboxEnvironment(around.environment, script.environment), cwd: startDirectory }
    const run = ScriptRun.start(sandbox.agent, request, sink)
    return new HostSandbox(sandbox, run, attachMs(), around)
  }

  /** Takes up the script of a sandbox that outlived the last daemon, or has it from another one; output goes on behind what is safe already. One that is hibernated stays so. */
  static resume(sandbox: Sandbox, safe: SafeOutput, sink: OutputSink, around: Surroundings) {
    const script = ScriptRun.found(safe, sink)
    const running = new HostSandbox(sandbox, script, 0, around)
    if (!sandbox.hibernated) script.takeUp(sandbox.agent)
    else {
      running.#wish = 'asleep'
      running.#become('hibernated')
    }
    return running
  }

  get sandboxId() {
    return this.#sandbox.id
  }

  get isolation(): Isolation {
    return this.#sandbox.isolation
  }

  async signal(signal: number) {
    this.#mustBeAwake()
    this.#script.signal(signal)
  }

  async exec(request: ExecRequest, onOutput: ExecOutput, abort?: AbortSignal): Promise<ScriptExit & { timedOut: boolean }> {
    abort?.throwIfAborted()
    this.#mustBeAwake()
    const programs = this.#programs()
    let failure: { readonly error: unknown } | undefined
    const program = programs.agent.exec(
      {
        argv: request.command,
        env: sandboxEnvironment(programs.environment, request.environment),
        cwd: request.cwd ?? startDirectory,
        stdin: request.stdin !== undefined,
      },
      async (stream, _offset, bytes) => {
        try {
          await onOutput(stream, bytes)
        } catch (error) {
          // Ends the program, and the promise of its exit.
          failure ??= { error }
          throw error
        }
        return undefined
      },
    )
    let timedOut = false
    const kill = () => program.signal(constants.signals.SIGKILL)
    const timer = setTimeout(() => {
      timedOut = true
      kill()
    }, request.timeoutMs)
    abort?.addEventListener('abort', kill, { once: true })
    if (request.stdin !== undefined) {
      sendInput(program, request.stdin).catch((error: unknown) => {
        // A program that ends without reading its input is no error; one that is to read what cannot be had would wait for ever.
        failure ??= { error }
        kill()
      })
    }
    try {
      await program.exit.catch(() => undefined)
      if (failure) throw failure.error
      const exit = await explainExit(programs, request.command[0] ?? '', program.exit)
      if (exit.kind === 'sandbox-lost') throw new MagsError('sandbox_failed', `the sandbox ended while the command ran: ${exit.reason ?? 'no reason known'}`)
      return { ...exit, timedOut }
    } finally {
      clearTimeout(timer)
      abort?.removeEventListener('abort', kill)
      program.close()
    }
  }

  start(request: ProgramRequest, onOutput: ExecOutput): RunningProgram {
    this.#mustBeAwake()
    return startProgram(this.#programs(), request, onOutput)
  }

  async connect(port: number): Promise<Duplex> {
    this.#mustBeAwake()
    return await this.#sandbox.connect(port)
  }

  sleep() {
    return this.#settle('asleep')
  }

  wake() {
    return this.#settle('awake')
  }

  async hibernate() {
    if (this.#sandbox.hibernate === undefined) return false
    await this.#inTurn(() => this.#hibernate())
    return true
  }

  setEgress(policy: EgressPolicy) {
    return this.#around.egress.set(policy)
  }

  get egressTotal() {
    return this.#around.egress.totalBytes
  }

  egressBytes() {
    return this.#around.egress.bytes()
  }

  watchRefused(listener: (refused: RefusedConnection) => void) {
    return this.#around.egress.watchRefused(listener)
  }

  readonly watchStalls = (listener: (words: string | undefined) => void) => this.#sandbox.watchStalls?.(listener)

  async fork(spec: SandboxSpec, abort?: AbortSignal): Promise<Forked> {
    this.#mustBeAwake()
    // A save holds the files of the sandbox now and then. Those asked for from here on wait for the copy.
    const saves = this.#saves
    const forked = this.#inTurn(async () => {
      await saves
      if (this.#rest !== 'awake') throw asleepError()
      return await this.#around.fork(spec, abort)
    })
    this.#forks = Promise.allSettled([this.#forks, forked])
    return await forked
  }

  async saveWorkspace(options: { readonly final: boolean }): Promise<WorkspaceSaved> {
    if (this.#around.workspace === undefined) throw new MagsError('bad_request', 'this job has no workspace')
    this.#mustBeAwake({ orStalled: this.isolation === 'container' })
    const workspace = this.#around.workspace
    const saving = this.#forks.then(() => workspace.save(options))
    this.#saves = Promise.allSettled([this.#saves, saving])
    return await saving
  }

  async keepsUnsaved() {
    return this.#around.workspace?.keepsUnsaved ?? false
  }

  async destroy() {
    await this.#around.end()
  }

  /** `orStalled`: a container's files can be read from outside. */
  #mustBeAwake({ orStalled = false } = {}) {
    if (this.#rest !== 'awake' || this.#wish !== 'awake') throw asleepError()
    if (this.#sandbox.stall === undefined || orStalled) return
    throw new MagsError('storage_full', `the machine stands still: ${this.#sandbox.stall}; it goes on by itself once there is room`)
  }

  async #explainScript(): Promise<ScriptExit> {
    const exit = this.#script.exit
    const unknown = await exit.then(
      (seen) => seen === undefined,
      () => false,
    )
    if (unknown) return unseen
    return await explainExit(this.#sandbox, this.#script.program, exit as Promise<AgentExit>)
  }

  /** What a program's end is explained with: it also ends, for us, when its connection was given up. */
  #programs(): ProgramSandbox {
    const sandbox = this.#sandbox
    const cut = this.#cut.promise
    return {
      agent: sandbox.agent,
      shape: sandbox.shape,
      environment: this.#around.environment,
      ranOutOfMemory: () => sandbox.ranOutOfMemory(),
      get died() {
        return Promise.race([sandbox.died, cut])
      },
    }
  }

  /** One change for all who wish the same meanwhile. */
  #settle(wish: Change['wish']): Promise<void> {
    this.#wish = wish
    this.#wished.resolve()
    this.#wished = Promise.withResolvers()
    if (this.#change?.wish === wish) return this.#change.done
    const made = () => {
      if (this.#change === change) this.#change = undefined
    }
    const change = { wish, done: this.#inTurn(() => this.#reach()).finally(made) }
    this.#change = change
    return change.done
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#changes.then(work)
    this.#changes = done.catch(() => undefined)
    return done
  }

  async #reach() {
    if (this.#death !== undefined) throw new MagsError('sandbox_failed', `the sandbox ended: ${this.#death}`)
    try {
      if (this.#wish === 'awake') await this.#wakeUp()
      else await this.#fallAsleep()
    } catch (error) {
      this.#wish = this.#rest === 'awake' ? 'awake' : 'asleep'
      if (error instanceof MagsError) throw error
      throw new MagsError('sandbox_failed', `the sandbox could not be ${this.#rest === 'awake' ? 'put to sleep' : 'woken'}: ${(error as Error).message}`, {
        cause: error,
      })
    }
  }

  async #fallAsleep() {
    if (this.#rest !== 'awake') return
    // A save waits for the sandbox now and then, and would do so for as long as it sleeps.
    for (let wished: unknown; wished !== this.#wished; ) {
      wished = this.#wished
      if (this.#wish === 'awake') return
      await Promise.race([this.#saves, this.#wished.promise])
    }
    await this.#sandbox.freeze()
    this.#become('asleep')
  }

  async #wakeUp() {
    if (this.#rest === 'awake') return
    await this.#sandbox.thaw()
    if (this.#rest === 'hibernated') this.#script.takeUp(this.#sandbox.agent)
    this.#become('awake')
  }

  async #hibernate() {
    // Not so when it could not be woken half way: its memory is back, its agent is not.
    if (this.#rest === 'hibernated' && this.#sandbox.hibernated) return
    if (this.#rest === 'awake' || this.#wish === 'awake') throw new MagsError('job_not_running', 'only a sandbox that sleeps can be hibernated')
    await this.#script.hold()
    try {
      await this.#sandbox.hibernate?.()
    } catch (error) {
      this.#script.resume()
      throw error
    }
    this.#script.letGo()
    this.#around.workspace?.disconnected()
    this.#cut.resolve({ reason: 'it was hibernated, which closes all connections' })
    this.#cut = Promise.withResolvers()
    this.#become('hibernated')
  }

  #become(rest: Rest) {
    const asleep = rest !== 'awake'
    if (asleep !== (this.#rest !== 'awake')) this.#around.onAsleep(asleep)
    this.#rest = rest
  }
}

const asleepError = () => new MagsError('job_not_running', 'the sandbox sleeps; wake it first')

// The agent keeps a program's channel until the host closes it, which it does not do with a script's.
const unseen: ScriptExit = {
  kind: 'unknown',
  exitCode: 0,
  reason: 'the server ended before it had started the script, or the sandbox does not know of it any more; whether it ran is not known',
}

/** Rejects only with what `input` throws. */
async function sendInput(program: AgentExec, input: Uint8Array | AsyncIterable<Uint8Array>): Promise<void> {
  const refused = new Error('the program reads no more')
  const write = (bytes: Uint8Array) =>
    program.writeStdin(bytes).catch(() => {
      throw refused
    })
  try {
    if (input instanceof Uint8Array) await write(input)
    else for await (const bytes of input) await write(bytes)
    program.endStdin()
  } catch (error) {
    if (error !== refused) throw error
  }
}
