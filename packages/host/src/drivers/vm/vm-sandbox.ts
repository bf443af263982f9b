import { randomBytes, randomUUID } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { MagsError } from '@mags/protocol'
import type { AgentConnection, AgentIdentity, AgentNetwork } from '../../agent/connection.ts'
import { openGuestLayer } from '../../layers/open-guest-layer.ts'
import type { TapSlot } from '../../network/sandbox-network.ts'
import { writeRecord } from '../../recover/record-file.ts'
import type { Sandbox, SandboxDeath, SandboxRoot, SandboxShape } from '../driver.ts'
import { hostnameOf } from '../sandbox-id.ts'
import { workspaceSerial } from './command-line.ts'
import type { Machine } from './machine.ts'
import { recordName, type VmRecord } from './vm-record.ts'
import { type DiskSlot, lendDisk, makeWorkspaceDisk, type WorkspaceDisk } from './workspace-disk.ts'

/** What the guest's kernel says, at a level that reaches its console, when it ends a program for want of memory. */
const oomMessage = /Out of memory: Killed process|Memory cgroup out of memory/

export interface VmSandboxParts {
  readonly record: VmRecord
  readonly isolation: 'kvm' | 'emulated-vm'
  readonly directory: string
  readonly uid: number
  readonly machine: Machine
  readonly agent: AgentConnection
  /** Absent when taken back from an earlier daemon: it is attached already. */
  readonly disk?: DiskSlot
  readonly tap: TapSlot | undefined
  readonly resolver: string | undefined
  /** Whether the host's limit on QEMU was passed. */
  readonly ranOutOfMemory: () => Promise<boolean>
  /** Frees what the driver lent, after QEMU is dead. */
  readonly release: () => Promise<void>
}

/**
 * A virtual machine. Warm ones are stopped, with their root composed on a disk of their own and their name and network set: `attach` lets them run and renews their clock and randomness.
 *
 *     warm ──attach──▶ attached ──freeze──▶ frozen ──thaw──▶ attached
 *       └──────────────┴──────── destroy, death ─────┴──▶ gone
 *       └──────────────┴──────── detach ─────────────┴──▶ let go (it runs on without us)
 */
export class VmSandbox implements Sandbox {
  readonly agent: AgentConnection
  readonly died: Promise<SandboxDeath>
  readonly #parts: VmSandboxParts
  readonly #dead = Promise.withResolvers<SandboxDeath>()
  #record: VmRecord
  #outOfMemory = false
  #halting: Promise<void> | undefined
  #letGo = false
  #destroying: Promise<void> | undefined

  constructor(parts: VmSandboxParts) {
    this.#parts = parts
    this.#record = parts.record
    this.agent = parts.agent
    this.died = this.#dead.promise
    parts.machine.stopped.then((reason) => this.#end(reason))
    parts.agent.closed.then((error) => this.#onAgentClosed(error))
  }

  get id() {
    return this.#record.id
  }

  get shape() {
    return this.#record.shape
  }

  get isolation() {
    return this.#parts.isolation
  }

  async attach(shape: SandboxShape, root?: SandboxRoot) {
    const { disk, machine, tap, resolver } = this.#parts
    if (disk === undefined || this.#record.attached) throw new MagsError('internal', 'this virtual machine is attached already')
    if (shape.image !== this.shape.image || shape.vcpus !== this.shape.vcpus || shape.memoryMb !== this.shape.memoryMb) {
      throw new MagsError('internal', 'a virtual machine cannot change its image, processors or memory once it is made')
    }
    if (root !== undefined && root.lowerDisks.length > 0) throw new MagsError('internal', 'a virtual machine has one disk')
    const otherDisk = root?.upperDisk !== undefined || shape.diskGb !== this.shape.diskGb
    this.#record = { ...this.#record, shape, attached: true }
    const recorded = writeRecord(join(this.#parts.directory, recordName), this.#record)
    const running = machine.qmp.execute('cont')
    if (otherDisk) {
      await running
      await this.#changeDisk(disk, root?.upperDisk !== undefined, () => this.#makeDisk(shape, root))
    }
    // What was right ahead of time is not written again: each file costs a millisecond or two under emulation.
    const files = otherDisk ? rootFiles(hostnameOf(this.id), tap, resolver) : {}
    await Promise.all([recorded, running, this.agent.identity({ ...freshState(), ...files })])
  }

  async freeze() {
    await this.#parts.machine.qmp.execute('stop')
  }

  /** The guest's clock stood still meanwhile, so it is set. */
  async thaw() {
    await Promise.all([this.#parts.machine.qmp.execute('cont'), this.agent.identity(freshState())])
  }

  openLayer() {
    return openGuestLayer(this.agent)
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
    return this.agent.dial(port)
  }

  get network() {
    return this.#parts.tap
  }

  async ranOutOfMemory() {
    this.#outOfMemory ||= (await this.#parts.ranOutOfMemory().catch(() => false)) || oomMessage.test(await this.#parts.machine.readConsole())
    return this.#outOfMemory
  }

  async keep(keep: boolean) {
    this.#record = { ...this.#record, keep }
    await writeRecord(join(this.#parts.directory, recordName), this.#record)
  }

  async detach() {
    this.#letGo = true
    this.agent.close()
    this.#parts.machine.qmp.close()
  }

  destroy() {
    return this.#end('destroyed')
  }

  #onAgentClosed(error: Error | undefined) {
    if (error === undefined) return
    // A stream that we closed on bad frames is our verdict. One that broke is nearly always QEMU's end, whose reason comes a moment later.
    if (error.name === 'AgentProtocolError') this.#end(error.message)
    else setTimeout(() => this.#end(`the connection to its agent broke: ${error.message}`), 1_000).unref()
  }

  #end(reason: string): Promise<void> {
    if (this.#letGo) return Promise.resolve()
    this.#destroying ??= this.#destroy(reason)
    return this.#destroying
  }

  async #destroy(reason: string) {
    const { agent, machine, release } = this.#parts
    agent.close()
    const outOfMemory = reason !== 'destroyed' && (await this.ranOutOfMemory())
    await machine.kill()
    this.#dead.resolve({ reason: outOfMemory ? `its virtual machine ran out of memory (limit ${this.shape.memoryMb} MB): ${reason}` : reason })
    await release()
  }

  #makeDisk(shape: SandboxShape, root: SandboxRoot | undefined): Promise<WorkspaceDisk> {
    const { directory, uid } = this.#parts
    if (root?.upperDisk !== undefined) return lendDisk(root.upperDisk, join(directory, 'workspace.raw'), uid)
    return makeWorkspaceDisk(join(directory, `disk-${shape.diskGb}.raw`), shape.diskGb, uid)
  }

  /** The composed root is on a disk of the usual size that holds nothing; this job wants another. */
  async #changeDisk(slot: DiskSlot, lent: boolean, make: () => Promise<WorkspaceDisk>) {
    const [disk] = await Promise.all([make(), this.agent.detachDisk()])
    await slot.swapIn(disk)
    await rm(join(this.#parts.directory, firstDiskName), { force: true })
    await this.agent.attachDisk(workspaceSerial, disk.fileSystemUuid).catch((error: unknown) => {
      throw lent && error instanceof MagsError && error.details?.errno !== undefined ? unusableDisk(error) : error
    })
  }
}

/** The guest of an earlier job can do anything to its disk. The caller gives such a disk up. */
function unusableDisk(error: MagsError): MagsError {
  const words = `the disk of the workspace cannot be mounted any more (${error.message}); what was not saved on it is lost, start the job again to go on from the last saved version`
  return new MagsError('sandbox_failed', words, { cause: error })
}

export const firstDiskName = 'disk.raw'

/** Clock and randomness: clones of a template have the template's. */
export function freshState(): AgentIdentity {
  return { unixTimeNs: BigInt(Date.now()) * 1_000_000n, entropy: randomBytes(64) }
}

/** Everything in the composed root that makes the machine itself. */
export function rootFiles(hostname: string, tap: TapSlot | undefined, resolver: string | undefined): AgentIdentity {
  return {
    hostname,
    hosts: `127.0.0.1\tlocalhost\n${tap?.address ?? '127.0.1.1'}\t${hostname}\n`,
    ...(resolver === undefined ? {} : { resolvConf: `nameserver ${resolver}\n` }),
    machineId: `${randomUUID().replaceAll('-', '')}\n`,
  }
}

export function networkOf(tap: TapSlot): AgentNetwork {
  const { mac, address, prefixLength, gateway, mtu } = tap
  return { mac, address, prefixLength, gateway, mtu }
}
