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
import type { AgentExec, AgentExit, AgentOutput } from '../agent/connection.ts'
import type { Sandbox } from '../drivers/driver.ts'
import type { SandboxEgress } from '../egress/sandbox-egress.ts'
import type { OpenWorkspace } from '../workspaces/local/open-workspace.ts'
import { placeFiles } from './place-files.ts'
import { AgentSandboxFiles } from './sandbox-files.ts'
import { sandboxEnvironment } from './script-environment.ts'
import { startProgram } from './start-program.ts'

type ExecOutput = (source: 'stdout' | 'stderr', bytes: Uint8Array) => Promise<void> | void

const startDirectory = '/root'
const signalBase = 128

/** What a sandbox belongs to. */
export interface Surroundings {
  readonly workspace: OpenWorkspace | undefined
  readonly egress: SandboxEgress
  readonly end: () => Promise<void>
}

/**
 * A sandbox that runs a job's script: the host's end of {@link RunningSandbox}.
 *
 *     running ──script's first process ended──▶ resting ──destroy──▶ gone
 *        └──────────────── destroy, death of the machine ───────────▶ gone
 */
export class HostSandbox implements RunningSandbox {
  readonly exited: Promise<ScriptExit>
  readonly gone: Promise<void>
  readonly attachMs: number
  readonly files: SandboxFiles
  readonly #sandbox: Sandbox
  readonly #script: AgentExec | undefined
  readonly #workspace: OpenWorkspace | undefined
  readonly #egress: SandboxEgress
  readonly #end: () => Promise<void>

  private constructor(sandbox: Sandbox, script: AgentExec | undefined, attachMs: number, { workspace, egress, end }: Surroundings) {
    this.#sandbox = sandbox
    this.#workspace = workspace
    this.#egress = egress
    this.#end = end
    this.#script = script
    this.attachMs = attachMs
    this.files = new AgentSandboxFiles(sandbox.agent)
    this.gone = sandbox.died.then(() => undefined)
    this.exited = script === undefined ? Promise.resolve(unseen) : this.#explain(script.exit)
  }

  /** Hands the script to an attached sandbox, after its files. */
  static async start(sandbox: Sandbox, script: ScriptSpec, sink: OutputSink, { attachMs, ...around }: Surroundings & { attachMs: () => number }) {
    if (script.files && script.files.length > 0) await placeFiles(new AgentSandboxFiles(sandbox.agent), script.files)
    const request = { argv: ['/bin/sh'], script: script.script, env: sandboxEnvironment(script.environment), cwd: startDirectory }
    const exec = sandbox.agent.exec(request, agentOutput(sink))
    return new HostSandbox(sandbox, exec, attachMs(), around)
  }

  /** Takes up the script of a sandbox that outlived the last daemon; output goes on behind what is safe already. */
  static resume(sandbox: Sandbox, safe: { stdout: number; stderr: number }, sink: OutputSink, around: Surroundings) {
    // The script is the first program of its sandbox, so it has the lowest number of all that still live.
    const channels = sandbox.agent.liveChannels.filter(({ kind }) => kind === 'exec').map(({ channel }) => channel)
    const script = channels.length === 0 ? undefined : sandbox.agent.resumeExec(Math.min(...channels), safe, agentOutput(sink))
    return new HostSandbox(sandbox, script, 0, around)
  }

  get sandboxId() {
    return this.#sandbox.id
  }

  get isolation(): Isolation {
    return this.#sandbox.isolation
  }

  async signal(signal: number) {
    this.#script?.signal(signal)
  }

  async exec(request: ExecRequest, onOutput: ExecOutput, abort?: AbortSignal): Promise<ScriptExit & { timedOut: boolean }> {
    abort?.throwIfAborted()
    let failure: { readonly error: unknown } | undefined
    const program = this.#sandbox.agent.exec(
      {
        argv: request.command,
        env: sandboxEnvironment(request.environment),
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
      const exit = await this.#explain(program.exit)
      if (exit.kind === 'sandbox-lost') throw new MagsError('sandbox_failed', `the sandbox ended while the command ran: ${exit.reason ?? 'no reason known'}`)
      return { ...exit, timedOut }
    } finally {
      clearTimeout(timer)
      abort?.removeEventListener('abort', kill)
      program.close()
    }
  }

  start(request: ProgramRequest, onOutput: ExecOutput): RunningProgram {
    return startProgram(this.#sandbox, request, onOutput)
  }

  connect(port: number): Promise<Duplex> {
    return this.#sandbox.connect(port)
  }

  async sleep() {
    await this.#sandbox.freeze()
  }

  async wake() {
    await this.#sandbox.thaw()
  }

  async hibernate() {
    return false
  }

  setEgress(policy: EgressPolicy) {
    return this.#egress.set(policy)
  }

  egressBytes() {
    return this.#egress.bytes()
  }

  watchRefused(listener: (refused: RefusedConnection) => void) {
    return this.#egress.watchRefused(listener)
  }

  async fork(_spec: SandboxSpec): Promise<{ readonly lease: SandboxLease; readonly withMemory: boolean }> {
    throw new MagsError('not_available', 'forks of running sandboxes')
  }

  async saveWorkspace(options: { readonly final: boolean }): Promise<WorkspaceSaved> {
    if (this.#workspace === undefined) throw new MagsError('bad_request', 'this job has no workspace')
    return await this.#workspace.save(options)
  }

  async keepsUnsaved() {
    return this.#workspace?.keepsUnsaved ?? false
  }

  async destroy() {
    await this.#end()
  }

  async #explain(exit: Promise<AgentExit>): Promise<ScriptExit> {
    try {
      return await this.#describe(await exit)
    } catch {
      const { reason } = await this.#sandbox.died
      return { kind: 'sandbox-lost', exitCode: signalBase + constants.signals.SIGKILL, reason: `the sandbox ended: ${reason}` }
    }
  }

  async #describe(exit: AgentExit): Promise<ScriptExit> {
    const usage = { userCpuMs: exit.userCpuMs, systemCpuMs: exit.systemCpuMs, maxRssKb: exit.maxRssKb }
    if (exit.kind === 'not-started') return { kind: 'not-started', exitCode: 127, reason: `/bin/sh did not start: ${exit.message}`, ...usage }
    const exitCode = exit.kind === 'exited' ? exit.code : signalBase + exit.code
    const outOfMemory = exitCode !== 0 && (await this.#sandbox.ranOutOfMemory().catch(() => false))
    const reason = outOfMemory ? { reason: `a process was killed because memory ran out (limit ${this.#sandbox.shape.memoryMb} MB)` } : {}
    return { kind: exit.kind, exitCode, ...reason, ...usage }
  }
}

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

function agentOutput(sink: OutputSink): AgentOutput {
  return (source, offset, bytes) => sink({ source, offset, bytes })
}
