import type { Duplex } from 'node:stream'
import type { AgentExecRequest, AgentExit } from '../../agent/connection.ts'
import type { SandboxRoot, SandboxShape } from '../driver.ts'
import { FakeFiles } from './fake-files.ts'
import { FakeProcess } from './fake-process.ts'

/** How a program ends: its exit code or a signal. */
export type FakeOutcome = number | { readonly signal: number }
/** An errno and words. Returned at once, not as a promise: the program then never started. */
export interface FakeRefusal {
  readonly notStarted: number
  readonly message: string
}
export type FakeProgram = (process: FakeProcess) => Promise<FakeOutcome> | FakeOutcome | FakeRefusal

/** Programs by what is run: the script, else the text after `-c`, else the arguments joined by spaces. */
export type FakePrograms = Readonly<Record<string, FakeProgram>>
/** Servers by port; each gets the sandbox's end of a new connection. */
export type FakePorts = Readonly<Record<number, (socket: Duplex) => void>>

/** The computer: its machines outlive drivers. Give one to two drivers to play two daemons, one after the other. */
export class FakeWorld {
  readonly machines = new Map<string, FakeMachine>()
  /** Whether there is room for the memory of machines. */
  hibernates = true
  readonly #disks = new Map<string, FakeFiles>()
  #count = 0

  /** What is on a disk; blank the first time. */
  disk(file: string): FakeFiles {
    const found = this.#disks.get(file) ?? new FakeFiles()
    this.#disks.set(file, found)
    return found
  }

  /** Counted, not random: runs are alike. */
  nextId(): string {
    return (++this.#count).toString(16).padStart(12, '0')
  }
}

/**
 * What stands for the kernel: one machine with its files and processes. It outlives connections and drivers that share its world.
 *
 *     running ──freeze──▶ frozen ──thaw──▶ running
 *        ├──────── halt ────┴──▶ halted
 *        └──────── die ─────┴──▶ dead
 */
export class FakeMachine {
  readonly id: string
  readonly shape: SandboxShape
  files = new FakeFiles()
  readonly processes = new Map<number, FakeProcess>()
  readonly ports: FakePorts
  readonly died: Promise<string>
  hostname = 'warm'
  attached = false
  kept = false
  hibernated = false
  outOfMemory = false
  nextChannel = 1
  readonly #programs: FakePrograms
  readonly #dead = Promise.withResolvers<string>()
  #thawed: PromiseWithResolvers<void> | undefined
  #reason: string | undefined
  #halted = false

  constructor(id: string, shape: SandboxShape, programs: FakePrograms, ports: FakePorts) {
    this.id = id
    this.shape = shape
    this.ports = ports
    this.#programs = programs
    this.died = this.#dead.promise
  }

  get dead(): string | undefined {
    return this.#reason
  }

  /** Lower disks are copied into an upper one the first time: what is in a layer of its own, a saved layer of the fake has, too. */
  mount({ lowerDisks, upperDisk, scope }: SandboxRoot, world: FakeWorld) {
    const upper = upperDisk === undefined ? new FakeFiles() : world.disk(upperDisk)
    if (scope !== undefined) upper.narrow(scope)
    if (upper.tree().length === 1) for (const disk of lowerDisks.toReversed()) upper.overlay(world.disk(disk))
    if (scope !== undefined) upper.makeDirectory(`/${scope}`, { mode: 0o755, parents: true })
    this.files = upper
  }

  start(request: AgentExecRequest): FakeProcess {
    const program = this.#programs[programKey(request)]
    return this.run(request, program ?? (() => ({ notStarted: 2, message: `${request.argv[0]}: no such file or directory` })))
  }

  run(request: AgentExecRequest, program: FakeProgram): FakeProcess {
    const process = new FakeProcess(this, this.nextChannel++, request)
    this.processes.set(process.channel, process)
    void process.run(program)
    return process
  }

  freeze() {
    this.#thawed ??= Promise.withResolvers<void>()
  }

  thaw() {
    this.#thawed?.resolve()
    this.#thawed = undefined
  }

  /** Settles at the next turn of the event loop in which the machine runs; never once it is dead. */
  async turn(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve))
    while (this.#thawed) await this.#thawed.promise
    if (this.#halted || this.#reason !== undefined) await new Promise(() => undefined)
  }

  /** Nothing runs any more; its files stay. */
  halt() {
    this.#halted = true
  }

  die(reason: string) {
    if (this.#reason !== undefined) return
    this.#reason = reason
    this.#dead.resolve(reason)
  }
}

function programKey(request: AgentExecRequest): string {
  if (request.script !== undefined) return Buffer.from(request.script as string).toString()
  const [, option, text] = request.argv
  return option === '-c' && text !== undefined ? text : request.argv.join(' ')
}

export function exitOf(outcome: FakeOutcome | FakeRefusal): AgentExit {
  const usage = { userCpuMs: 1, systemCpuMs: 1, maxRssKb: 1024, message: '' }
  if (typeof outcome === 'number') return { kind: 'exited', code: outcome, ...usage }
  if ('signal' in outcome) return { kind: 'signalled', code: outcome.signal, ...usage }
  return { kind: 'not-started', code: outcome.notStarted, ...usage, message: outcome.message }
}
