import { type Isolation, MagsError } from '@mags/protocol'
import type { Sandbox, SandboxDriver, SandboxRoot, SandboxShape } from '../driver.ts'
import { FakeMachine, type FakePorts, type FakePrograms, FakeWorld } from './fake-machine.ts'
import { FakeSandbox } from './fake-sandbox.ts'

export interface FakeDriverOptions {
  readonly programs?: FakePrograms
  readonly ports?: FakePorts
  readonly isolation?: Isolation
  /** Default `attach`. */
  readonly rootAt?: SandboxDriver['rootAt']
  /** Default true. */
  readonly stacks?: boolean
  readonly world?: FakeWorld
  /** Images it knows; without it any. */
  readonly images?: readonly string[]
  /** What `warmShape` folds a shape to; without it shapes stay apart. */
  readonly fold?: (shape: SandboxShape) => SandboxShape
}

/**
 * A SandboxDriver in memory for tests of the logic above: pool, host, recovery. Nothing runs and nothing waits for time: programs are functions from a table
 * (see fake-programs.ts), they take turns of the event loop, and what is slow is slow until the test says so:
 *
 *     const driver = new FakeDriver({ programs: { 'echo hi': echo('hi\n') } })
 *     const release = driver.holdCreates()      // create() waits from now on …
 *     release()                                 // … until here
 *     driver.failCreates('no space left')       // create() rejects with these words; undefined ends it
 *     driver.machine(sandbox.id).die('killed')  // a crash
 */
export class FakeDriver implements SandboxDriver {
  readonly isolation: Isolation
  readonly rootAt: SandboxDriver['rootAt']
  readonly stacks: boolean
  /** Shapes `create` was asked for, in order, failed ones included. */
  readonly asked: SandboxShape[] = []
  readonly #options: FakeDriverOptions
  readonly #world: FakeWorld
  readonly #adopted = new Set<string>()
  #failure: string | undefined
  #held: PromiseWithResolvers<void> | undefined
  #closed = false

  constructor(options: FakeDriverOptions = {}) {
    this.#options = options
    this.#world = options.world ?? new FakeWorld()
    this.isolation = options.isolation ?? 'container'
    this.rootAt = options.rootAt ?? 'attach'
    this.stacks = options.stacks ?? true
  }

  /** Machines that live. */
  get machines(): readonly FakeMachine[] {
    return [...this.#world.machines.values()]
  }

  machine(id: string): FakeMachine {
    const machine = this.#world.machines.get(id)
    if (!machine) throw new Error(`no fake machine ${id} lives`)
    return machine
  }

  failCreates(words: string | undefined) {
    this.#failure = words
  }

  holdCreates(): () => void {
    const held = Promise.withResolvers<void>()
    this.#held = held
    return () => {
      if (this.#held === held) this.#held = undefined
      held.resolve()
    }
  }

  warmShape(shape: SandboxShape): SandboxShape {
    return this.#options.fold?.(shape) ?? shape
  }

  async create(shape: SandboxShape, root?: SandboxRoot): Promise<Sandbox> {
    this.asked.push(shape)
    if (this.#closed) throw new MagsError('sandbox_failed', 'the driver is closed')
    await this.#held?.promise
    if (this.#failure !== undefined) throw new MagsError('sandbox_failed', this.#failure)
    const { images, programs = {}, ports = {} } = this.#options
    if (images && !images.includes(shape.image)) throw new MagsError('sandbox_failed', `there is no image '${shape.image}'`)
    const id = this.#world.nextId()
    const machine = new FakeMachine(id, shape, programs, ports)
    if (root !== undefined) machine.mount(root, this.#world)
    this.#world.machines.set(id, machine)
    void machine.died.then(() => this.#world.machines.delete(id))
    return new FakeSandbox(machine, this.isolation, this.#world)
  }

  async adopt(id: string): Promise<Sandbox | undefined> {
    const machine = this.#world.machines.get(id)
    if (!machine) return undefined
    this.#adopted.add(id)
    if (!machine.hibernated) machine.thaw()
    return new FakeSandbox(machine, this.isolation, this.#world)
  }

  async sweep(): Promise<void> {
    for (const machine of this.machines) if (!this.#adopted.has(machine.id)) machine.die('left behind by an earlier daemon')
  }

  async close(): Promise<void> {
    this.#closed = true
  }
}
