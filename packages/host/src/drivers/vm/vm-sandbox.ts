import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { MagsError } from '@mags/protocol'
import type { AgentConnection, AgentIdentity } from '../../agent/connection.ts'
import { SandboxConnections } from '../../dialer/sandbox-connections.ts'
import { openGuestLayer } from '../../layers/open-guest-layer.ts'
import type { ProcessIdentity } from '../../recover/process-identity.ts'
import { writeRecord } from '../../recover/record-file.ts'
import type { Sandbox, SandboxDeath, SandboxRoot, SandboxShape } from '../driver.ts'
import { hostnameOf } from '../sandbox-id.ts'
import { copyDisk } from '../scratch-disk.ts'
import { changeDisk, firstDiskName, workspaceDiskName } from './change-disk.ts'
import { freshState, leased6, networkOf, rootFiles } from './guest-identity.ts'
import { killProcess, type Machine } from './machine.ts'
import { memoryName, recordName, type VmRecord } from './vm-record.ts'
import type { VmSandboxParts } from './vm-sandbox-parts.ts'

/** What the guest's kernel says, at a level that reaches its console, when it ends a program for want of memory. */
const oomMessage = /Out of memory: Killed process|Memory cgroup out of memory/

/**
 * A virtual machine. Warm ones are stopped, with their root composed on a disk of their own and their name and network set: `attach` lets them run and renews their clock and randomness.
 *
 *     warm ──attach──▶ attached ──freeze──▶ frozen ──hibernate──▶ hibernated
 *       │                 ▲  │                │ ▲                  │
 *       │                 └──┼──── thaw ──────┤ └─ thaw, at first ─┘
 *       └────────────────────┴── destroy, death, any state ──▶ gone
 *       └────────────────────┴── detach, any state ──▶ let go (it goes on, or sleeps on, without us)
 *
 * A thaw that fails leaves it frozen, or hibernated when QEMU did not even start, to be tried again.
 */
export class VmSandbox implements Sandbox {
  readonly died: Promise<SandboxDeath>
  readonly #parts: VmSandboxParts
  readonly #dead = Promise.withResolvers<SandboxDeath>()
  readonly #connections: SandboxConnections
  readonly #stallListeners = new Set<(words: string | undefined) => void>()
  #record: VmRecord
  #machine: Machine | undefined
  #watched: Machine | undefined
  #agent: AgentConnection
  /** The agent's connection is that of the machine's last life. */
  #agentLost = false
  #frozen: boolean
  #outOfMemory = false
  #halting: Promise<void> | undefined
  #letGo = false
  #destroying: Promise<void> | undefined
  /** What changes whether it runs; its end waits for that. */
  #work: Promise<unknown> = Promise.resolve()
  /** A QEMU that is being started from its memory. */
  #starting: ProcessIdentity | undefined

  constructor(parts: VmSandboxParts) {
    this.#parts = parts
    this.#record = parts.record
    this.#machine = parts.machine
    this.#agent = parts.agent
    this.#frozen = this.#agentLost = parts.machine === undefined
    this.died = this.#dead.promise
    this.#connections = new SandboxConnections({
      agent: () => this.agent,
      dialer: parts.dialer,
      // QEMU is in the router's namespace, for its tap.
      process: () => this.#running().process,
      addresses: parts.tap === undefined ? undefined : [parts.tap.address],
      agentSeesMore: true,
    })
    this.#watch()
  }

  get id() {
    return this.#record.id
  }

  get shape() {
    return this.#record.shape
  }

  /** The image it was started with. */
  get imageFile() {
    return this.#record.imageFile ?? ''
  }

  get agent() {
    return this.#agent
  }

  get hibernated() {
    return this.#machine === undefined
  }

  get isolation() {
    return this.#parts.isolation
  }

  async attach(shape: SandboxShape, root?: SandboxRoot, address6?: string) {
    const { directory, uid, disk, tap, resolver } = this.#parts
    const machine = this.#machine
    if (machine === undefined && !this.#record.attached) return await this.#attachCopy(address6)
    if (disk === undefined || machine === undefined || this.#record.attached) throw new MagsError('internal', 'this virtual machine is attached already')
    if (
      shape.image !== this.shape.image ||
      shape.imageDigest !== this.shape.imageDigest ||
      shape.vcpus !== this.shape.vcpus ||
      shape.memoryMb !== this.shape.memoryMb
    ) {
      throw new MagsError('internal', 'a virtual machine cannot change its image, processors or memory once it is made')
    }
    if (root !== undefined && root.lowerDisks.length > 0) throw new MagsError('internal', 'a virtual machine has one disk')
    const lentFrom = root?.upperDisk
    const otherDisk = lentFrom !== undefined || shape.diskGb !== this.shape.diskGb
    const diskName = lentFrom !== undefined ? workspaceDiskName : otherDisk ? `disk-${shape.diskGb}.raw` : firstDiskName
    this.#record = { ...this.#record, shape, attached: true, disk: diskName }
    const recorded = writeRecord(join(directory, recordName), this.#record)
    const running = machine.qmp.execute('cont')
    if (otherDisk) {
      await running
      await changeDisk({ agent: this.agent, slot: disk, directory, uid, name: diskName, diskGb: shape.diskGb, lentFrom, scope: root?.scope })
    }
    // What was right ahead of time is not written again: each file costs a millisecond or two under emulation.
    const files = otherDisk ? rootFiles(hostnameOf(this.id), tap, resolver) : {}
    await Promise.all([recorded, running, this.agent.identity({ ...freshState(), ...leased6(tap, address6), ...files })])
  }

  async freeze() {
    if (this.#frozen) return
    const machine = this.#machine
    if (machine === undefined) return
    this.#frozen = true
    machine.diskStall.hold()
    try {
      await this.#saveRecord({ ...this.#record, asleep: true })
      await this.#heardAll()
      await machine.qmp.execute('stop')
    } catch (error) {
      this.#frozen = false
      machine.diskStall.release()
      throw new MagsError('sandbox_failed', `the virtual machine cannot be stopped: ${(error as Error).message}`, { cause: error })
    }
  }

  thaw() {
    return this.#tracked(this.#thaw(freshState()))
  }

  hibernate() {
    return this.#tracked(this.#hibernate())
  }

  /** Writes what it has at one moment: its memory into the folder of another machine, its disk into a file. It stands still for that long. */
  copyTo(target: { readonly directory: string; readonly diskFile: string }) {
    return this.#tracked(this.#copyTo(target))
  }

  openLayer(scope?: string) {
    return openGuestLayer(this.agent, scope)
  }

  /** A guest's kernel is never quite still, and what it holds in memory cannot be seen from outside. */
  async activity() {
    return undefined
  }

  /** Stopping the machine would stop the agent, too: only its disk is frozen (FIFREEZE of ioctl_fs(2)). */
  async quiesce() {
    await this.agent.freezeDisk()
  }

  async resume() {
    await this.agent.thawDisk()
  }

  /** There is nobody in a guest who could end its processes for certain; none of them can write any more. */
  async halt() {
    this.#halting ??= this.agent.freezeDisk()
    await this.#halting
  }

  connect(port: number) {
    return this.#connections.connect(port)
  }

  get stall() {
    return this.#machine?.diskStall.words
  }

  watchStalls(listener: (words: string | undefined) => void) {
    this.#stallListeners.add(listener)
    if (this.stall !== undefined) listener(this.stall)
  }

  get network() {
    return this.#parts.tap
  }

  async ranOutOfMemory() {
    this.#outOfMemory ||= (await this.#parts.ranOutOfMemory().catch(() => false)) || oomMessage.test((await this.#machine?.readConsole()) ?? '')
    return this.#outOfMemory
  }

  async keep(keep: boolean) {
    await this.#saveRecord({ ...this.#record, keep })
  }

  async detach() {
    this.#letGo = true
    this.agent.close()
    this.#machine?.qmp.close()
  }

  destroy() {
    return this.#end('destroyed')
  }

  #running(): Machine {
    if (this.#machine === undefined) throw new MagsError('job_not_running', 'the virtual machine is hibernated')
    return this.#machine
  }

  #tracked(work: Promise<void>): Promise<void> {
    this.#work = Promise.allSettled([this.#work, work])
    return work
  }

  /** The guest's clock stood still meanwhile, so it is set; and should there be two of it, then their randomness differs from now on. */
  async #thaw(identity: AgentIdentity) {
    if (!this.#frozen) return
    const machine = this.#machine ?? (await this.#revive())
    try {
      await Promise.all([machine.qmp.execute('cont'), this.#reachAgent(machine, identity)])
    } catch (error) {
      await machine.qmp.execute('stop').catch(() => undefined)
      throw new MagsError('sandbox_failed', `the virtual machine does not wake: ${(error as Error).message}`, { cause: error })
    }
    this.#frozen = false
    machine.diskStall.release()
    await this.#saveRecord({ ...this.#record, asleep: false })
  }

  async #hibernate() {
    const machine = this.#machine
    if (machine === undefined) return
    if (!this.#frozen) throw new MagsError('internal', 'only a frozen virtual machine can be hibernated')
    await this.#parts.save(machine, this.#parts.directory)
    this.#mustGoOn()
    // From here on its file is what counts, whether QEMU is still there or not.
    await this.#saveRecord({ ...this.#record, hibernated: true })
    this.#machine = undefined
    this.#agentLost = true
    this.#agent.close()
    await machine.kill()
  }

  async #copyTo({ directory, diskFile }: { readonly directory: string; readonly diskFile: string }) {
    const machine = this.#running()
    const disk = join(this.#parts.directory, this.#record.disk ?? firstDiskName)
    machine.diskStall.hold()
    if (!this.#frozen) {
      await this.#heardAll()
      await machine.qmp.execute('stop')
    }
    try {
      const copies = await Promise.allSettled([this.#parts.save(machine, directory), copyDisk(disk, diskFile)])
      for (const copy of copies) if (copy.status === 'rejected') throw copy.reason
    } finally {
      if (!this.#frozen) {
        machine.diskStall.release()
        await Promise.all([machine.qmp.execute('cont'), this.#agent.identity(freshState())])
      }
    }
  }

  /** What its agent was sent and has not read is in neither the memory nor a later connection: such as the order to start a script. An agent that does not answer soon is not waited for. */
  async #heardAll() {
    await this.#agent.ping(heardWithinMs).catch(() => undefined)
  }

  /** It was made from the memory of another machine: from its first moment on it must be one of its own. Its processes run for as long as its agent takes for that, without a network. */
  async #attachCopy(address6: string | undefined) {
    const { tap, resolver } = this.#parts
    const network = tap === undefined ? {} : { network: networkOf(tap), ...leased6(tap, address6) }
    await this.#tracked(this.#thaw({ ...freshState(), ...network, ...rootFiles(hostnameOf(this.id), tap, resolver) }))
    await this.#saveRecord({ ...this.#record, attached: true })
  }

  #mustGoOn() {
    if (this.#destroying !== undefined || this.#letGo) throw new MagsError('sandbox_failed', 'the virtual machine was ended meanwhile')
  }

  async #revive(): Promise<Machine> {
    this.#mustGoOn()
    const onProcess = async (process: ProcessIdentity) => {
      this.#mustGoOn()
      this.#starting = process
      await this.#saveRecord({ ...this.#record, process })
    }
    const machine = await this.#parts.revive(this.#record, onProcess)
    this.#starting = undefined
    if (this.#destroying !== undefined || this.#letGo) {
      await machine.kill()
      this.#mustGoOn()
    }
    // As soon as it runs its disk is not the one that the file goes with.
    const { hibernated: _, ...record } = this.#record
    await this.#saveRecord(record)
    await rm(join(this.#parts.directory, memoryName), { force: true })
    this.#machine = machine
    this.#watch()
    return machine
  }

  async #reachAgent(machine: Machine, identity: AgentIdentity) {
    const { connect, timeoutMs } = this.#parts
    if (this.#agentLost) {
      this.#agent = await connect(machine)
      this.#agentLost = false
      this.#watch()
    }
    await answerWithin(timeoutMs, this.#agent.identity(identity))
  }

  /** Of this machine and this connection; those before them have nothing to say any more. */
  #watch() {
    const machine = this.#machine
    const agent = this.#agent
    machine?.stopped.then((reason) => {
      if (this.#machine === machine) void this.#end(reason)
    })
    if (machine !== this.#watched) machine?.diskStall.watch((words) => this.#tellStall(machine, words))
    this.#watched = machine
    if (this.#agentLost) return
    agent.closed.then((error) => {
      if (this.#agent === agent) this.#onAgentClosed(agent, error)
    })
  }

  #tellStall(machine: Machine, words: string | undefined) {
    if (this.#machine === machine) for (const listener of this.#stallListeners) listener(words)
  }

  async #saveRecord(record: VmRecord) {
    this.#record = record
    await writeRecord(join(this.#parts.directory, recordName), record)
  }

  #onAgentClosed(agent: AgentConnection, error: Error | undefined) {
    if (error === undefined) return
    // A stream that we closed on bad frames is our verdict. One that broke is nearly always QEMU's end, whose reason comes a moment later.
    if (error.name === 'AgentProtocolError') this.#end(error.message)
    else setTimeout(() => agent === this.#agent && void this.#end(`the connection to its agent broke: ${error.message}`), 1_000).unref()
  }

  #end(reason: string): Promise<void> {
    if (this.#letGo) return Promise.resolve()
    this.#destroying ??= this.#destroy(reason)
    // For who does not wait; what could not be freed is freed by the next start.
    this.#destroying.catch(() => undefined)
    return this.#destroying
  }

  async #destroy(reason: string) {
    const { release } = this.#parts
    this.agent.close()
    this.#connections.close()
    const outOfMemory = reason !== 'destroyed' && (await this.ranOutOfMemory())
    await this.#machine?.kill()
    if (this.#starting !== undefined) await killProcess(this.#starting)
    this.#dead.resolve({ reason: outOfMemory ? `its virtual machine ran out of memory (limit ${this.shape.memoryMb} MB): ${reason}` : reason })
    await this.#work
    await release()
  }
}

async function answerWithin(timeoutMs: number, answer: Promise<void>): Promise<void> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => reject(new Error(`its agent did not answer within ${timeoutMs / 1000} s`)), timeoutMs)
  await Promise.race([answer, late]).finally(() => clearTimeout(timer))
}

const heardWithinMs = 2_000
