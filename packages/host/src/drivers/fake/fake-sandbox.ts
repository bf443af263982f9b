import { type Isolation, MagsError } from '@mags/protocol'
import type { LayerSession } from '../../layers/layer-session.ts'
import type { Sandbox, SandboxDeath, SandboxRoot, SandboxShape } from '../driver.ts'
import { hostnameOf } from '../sandbox-id.ts'
import { FakeAgent } from './fake-agent.ts'
import { FakeLayer } from './fake-layer.ts'
import type { FakeMachine, FakeWorld } from './fake-machine.ts'

/** A {@link FakeMachine} in the hands of one driver. */
export class FakeSandbox implements Sandbox {
  readonly id: string
  readonly shape: SandboxShape
  readonly isolation: Isolation
  readonly died: Promise<SandboxDeath>
  readonly #machine: FakeMachine
  readonly #world: FakeWorld
  #agent: FakeAgent
  /** As a virtual machine's: the connection goes, what runs inside stays. */
  readonly hibernate?: () => Promise<void>

  constructor(machine: FakeMachine, isolation: Isolation, world: FakeWorld) {
    this.#machine = machine
    this.#world = world
    this.id = machine.id
    this.shape = machine.shape
    this.isolation = isolation
    this.died = machine.died.then((reason) => ({ reason }))
    this.#agent = new FakeAgent(machine)
    if (machine.hibernated) this.#agent.close()
    if (isolation === 'container') return
    this.hibernate = async () => {
      if (!world.hibernates) throw new MagsError('sandbox_failed', 'the disk is full')
      machine.hibernated = true
      this.#agent.close()
    }
  }

  get agent() {
    return this.#agent
  }

  get hibernated() {
    return this.#machine.hibernated
  }

  async attach(_shape: SandboxShape, root?: SandboxRoot): Promise<void> {
    if (this.#machine.attached) throw new MagsError('sandbox_failed', 'the sandbox is attached already')
    this.#machine.attached = true
    if (root !== undefined) this.#machine.mount(root, this.#world)
    for (const path of ['/root', '/tmp']) this.#machine.files.makeDirectory(path, { mode: 0o755, parents: true })
    const hostname = hostnameOf(this.id)
    await this.agent.identity({
      hostname,
      hosts: `127.0.0.1\tlocalhost\n10.0.0.1\t${hostname}\n`,
      resolvConf: 'nameserver 10.0.0.254\n',
      machineId: `${this.id.padStart(32, '0')}\n`,
    })
  }

  async openLayer(): Promise<LayerSession> {
    return new FakeLayer(this.#machine.files)
  }

  async activity(): Promise<undefined> {
    return undefined
  }

  async quiesce(): Promise<void> {
    this.#machine.freeze()
  }

  async resume(): Promise<void> {
    this.#machine.thaw()
  }

  async halt(): Promise<void> {
    this.#machine.halt()
    this.agent.close()
  }

  async ranOutOfMemory(): Promise<boolean> {
    return this.#machine.outOfMemory
  }

  async freeze(): Promise<void> {
    this.#machine.freeze()
  }

  async thaw(): Promise<void> {
    if (this.#machine.hibernated) {
      this.#machine.hibernated = false
      this.#agent = new FakeAgent(this.#machine)
    }
    this.#machine.thaw()
  }

  connect(port: number) {
    return this.agent.dial(port)
  }

  get network() {
    return undefined
  }

  async keep(keep: boolean): Promise<void> {
    this.#machine.kept = keep
  }

  async detach(): Promise<void> {
    this.agent.close()
  }

  async destroy(): Promise<void> {
    this.#machine.die('destroyed')
    this.#agent.close()
  }
}
