import { join } from 'node:path'
import { MagsError } from '@mags/protocol'
import type { Logger } from 'pino'
import type { AgentConnection } from '../../agent/connection.ts'
import type { CgroupTree } from '../../cgroups/cgroup-tree.ts'
import type { Dialer } from '../../dialer/dialer-client.ts'
import { SandboxConnections } from '../../dialer/sandbox-connections.ts'
import type { LayerSession } from '../../layers/layer-session.ts'
import { openHostLayer } from '../../layers/open-host-layer.ts'
import type { MounterClient } from '../../mounter/mounter-client.ts'
import type { ContainerSlot } from '../../network/sandbox-network.ts'
import type { ProcessIdentity } from '../../recover/process-identity.ts'
import { writeRecord } from '../../recover/record-file.ts'
import { runAny } from '../../run.ts'
import type { DiskRoom } from '../disk-room.ts'
import type { Sandbox, SandboxDeath, SandboxRoot, SandboxShape } from '../driver.ts'
import type { LayeredRoot } from './container-root.ts'
import { ContainerStall } from './container-stall.ts'

/** `record.json` of a container's run folder: all that is needed to free it, or to take it back. */
export interface ContainerRecord {
  readonly id: string
  readonly slot: number
  readonly shape: SandboxShape
  /** Absent until the runtime has reported it. */
  readonly process?: ProcessIdentity
  /** It has a disk of its own, named after it, because another size than the slots' was wanted. */
  readonly ownDisk: boolean
  readonly keep: boolean
  /** It stands still on purpose, or is on its way there. */
  readonly asleep?: boolean
  /** Other disks than its own scratch disk that its root is made of. */
  readonly root?: SandboxRoot
  /** It got that root by a swap: an upper layer on its scratch disk is not where the first was. */
  readonly swapped?: boolean
}

export const recordName = 'record.json'

export interface ContainerSandboxDeps {
  /** Makes connections into sandboxes; without it their agents do. */
  readonly dialer?: Dialer
  readonly mounter: MounterClient
  readonly cgroups: CgroupTree
  readonly logger: Logger
  /** Room for what it writes; without it nobody looks. */
  readonly room?: DiskRoom
}

export interface ContainerSandboxParts {
  readonly record: ContainerRecord & { readonly process: ProcessIdentity }
  readonly dir: string
  readonly cgroup: string
  readonly agent: AgentConnection
  readonly root: LayeredRoot
  readonly network: ContainerSlot | undefined
  /** Gives it another root, and its identity in there; absent where that cannot be done. */
  readonly swapRoot?: (root: SandboxRoot) => Promise<void>
  /** Frees what the driver lent, after the processes are dead. */
  readonly release: () => Promise<void>
}

const killTimeoutMs = 10_000
const lostWords = "the server's disk was full, or failed, and some of what the job wrote never got there; free some space on it before the next start"

/**
 *     warm ──attach──▶ attached ──freeze──▶ frozen ──thaw──▶ attached
 *       ├──────────────┼──────────────────────┴──── halt ──▶ halted
 *       └──────────────┴──────────── destroy, death ──────────┴──▶ gone
 */
export class ContainerSandbox implements Sandbox {
  readonly isolation = 'container'
  readonly agent: AgentConnection
  readonly died: Promise<SandboxDeath>
  readonly #deps: ContainerSandboxDeps
  readonly #parts: ContainerSandboxParts
  readonly #dead = Promise.withResolvers<SandboxDeath>()
  #record: ContainerRecord
  #destroying: Promise<void> | undefined
  #halting: Promise<void> | undefined
  #attached = false
  #detached = false
  #frozen = false
  #quiesced = false
  #reclaiming = new AbortController()
  readonly #stall: ContainerStall
  readonly #sessions: LayerSession[] = []
  readonly #connections: SandboxConnections

  constructor(deps: ContainerSandboxDeps, parts: ContainerSandboxParts) {
    this.#deps = deps
    this.#parts = parts
    this.#record = parts.record
    this.agent = parts.agent
    this.died = this.#dead.promise
    const address = parts.network?.address
    const stands = () => this.#frozen || this.#quiesced
    this.#stall = new ContainerStall({ ...deps, cgroup: parts.cgroup, stands, sandbox: this.id })
    this.#connections = new SandboxConnections({
      agent: () => this.agent,
      dialer: deps.dialer,
      process: () => parts.record.process,
      addresses: address === undefined ? undefined : ['127.0.0.1', address, '::1'],
      agentSeesMore: false,
    })
    parts.agent.closed.then((error) => this.#onAgentClosed(error))
  }

  get id() {
    return this.#record.id
  }

  /** What its root was given besides the image. */
  get rootDisks(): SandboxRoot | undefined {
    return this.#record.root
  }

  /** Where its upper layer lies, in the mounter's namespace. */
  layerDir(): Promise<string> {
    return this.#parts.root.layerDir()
  }

  get shape() {
    return this.#record.shape
  }

  async attach(shape: SandboxShape, root?: SandboxRoot) {
    if (this.#attached) throw new MagsError('sandbox_failed', 'the sandbox is attached already')
    this.#attached = true
    const { vcpus, memoryMb } = this.shape
    this.#record = { ...this.#record, shape }
    if (root !== undefined) await this.#swapRoot(root)
    if (shape.vcpus !== vcpus || shape.memoryMb !== memoryMb) {
      await this.#deps.cgroups.setLimits(this.#parts.cgroup, { vcpus: shape.vcpus, memoryMb: shape.memoryMb })
    }
    this.#stall.begin()
  }

  async openLayer(scope?: string): Promise<LayerSession> {
    const { layerSocket } = this.#deps.mounter
    if (layerSocket === undefined) throw new MagsError('internal', 'the mounter does not listen for who wants to read layers')
    const session = await openHostLayer(layerSocket, await this.#parts.root.layerDir(), scope)
    this.#sessions.push(session)
    return session
  }

  activity() {
    return this.#deps.cgroups.processorTime(this.#parts.cgroup)
  }

  async quiesce() {
    if (!this.#frozen) await this.#deps.cgroups.freeze(this.#parts.cgroup)
    this.#quiesced = true
  }

  async resume() {
    this.#quiesced = false
    if (!this.#frozen) await this.#stall.thaw()
  }

  halt() {
    this.#halting ??= this.#halt()
    return this.#halting
  }

  get stall() {
    return this.#stall.words
  }

  /** Of one that an earlier daemon attached. */
  resumeWatch() {
    this.#stall.begin()
  }

  watchStalls(listener: (words: string | undefined) => void) {
    this.#stall.watch(listener)
  }

  /** syncfs(2) tells of every write that failed since the file system was mounted, whichever file it was for and whoever has been told by fsync(2) before; but only once. */
  async lostWrites({ suspicious }: { readonly suspicious: boolean }) {
    const { mounter, room } = this.#deps
    if (!suspicious && !room?.wasTight) return undefined
    const layer = await this.#parts.root.layerDir().catch(() => undefined)
    if (layer === undefined) return undefined
    const { code } = await runAny('sync', ['-f', `/proc/${mounter.pid}/root${layer}`])
    return code === 0 ? undefined : lostWords
  }

  async freeze() {
    if (this.#frozen) return
    const { cgroups } = this.#deps
    this.#frozen = true
    try {
      await this.#saveRecord({ ...this.#record, asleep: true })
      await cgroups.freeze(this.#parts.cgroup)
    } catch (error) {
      if (this.#destroying === undefined) await this.thaw()
      throw new MagsError('sandbox_failed', `the sandbox cannot be put to sleep: ${(error as Error).message}`, { cause: error })
    }
    this.#reclaiming = new AbortController()
    void cgroups.reclaim(this.#parts.cgroup, this.#reclaiming.signal)
  }

  async thaw() {
    if (!this.#frozen) return
    this.#reclaiming.abort()
    this.#frozen = false
    if (!this.#quiesced) await this.#stall.thaw()
    await this.#saveRecord({ ...this.#record, asleep: false })
  }

  connect(port: number) {
    return this.#connections.connect(port)
  }

  get network() {
    return this.#parts.network
  }

  async ranOutOfMemory() {
    return (await this.#deps.cgroups.oomKills(this.#parts.cgroup)) > 0
  }

  async keep(keep: boolean) {
    await this.#saveRecord({ ...this.#record, keep })
  }

  async detach() {
    this.#detached = true
    await this.#stall.end()
    for (const session of this.#sessions.splice(0)) session.close()
    this.agent.close()
  }

  destroy() {
    this.#destroying ??= this.#destroy({ reason: 'destroyed' })
    return this.#destroying
  }

  async #onAgentClosed(error: Error | undefined) {
    if (this.#detached || this.#halting !== undefined || this.#destroying !== undefined) return
    // The agent is the first process: when it is gone, so is everything else. A connection refused for bad frames ends the sandbox, too.
    const outOfMemory = await this.ranOutOfMemory().catch(() => false)
    if (this.#halting !== undefined) return
    const words = outOfMemory ? `ran out of memory (limit ${this.shape.memoryMb} MB)` : (error?.message ?? 'its first process ended')
    this.#destroying ??= this.#destroy({ reason: words })
    await this.#destroying.catch((error: unknown) => this.#deps.logger.warn({ err: error, sandbox: this.id }, 'a dead sandbox could not be freed'))
  }

  async #swapRoot(root: SandboxRoot) {
    if (this.#parts.swapRoot === undefined)
      throw new MagsError('sandbox_failed', 'this sandbox has the root it was made with; another one must be asked for when it is made')
    await this.#saveRecord({ ...this.#record, root, swapped: true })
    await this.#parts.swapRoot(root)
  }

  async #halt() {
    this.agent.close()
    this.#connections.close()
    const ended = this.#deps.mounter.kill(this.#parts.record.process, killTimeoutMs)
    await this.#letDie()
    await ended
  }

  async #destroy(death: SandboxDeath) {
    this.agent.close()
    // Their workers would keep its disks busy.
    for (const session of this.#sessions.splice(0)) session.close()
    await this.#letDie().catch(() => undefined)
    this.#connections.close()
    // Should the mounter be gone, then removing the control group ends the processes; this is only the fast way.
    await this.#deps.mounter.kill(this.#parts.record.process, killTimeoutMs).catch(() => undefined)
    this.#dead.resolve(death)
    await this.#parts.release()
  }

  /** What stands still cannot die in every layout of control groups. With its first process killed nothing goes on for long. */
  async #letDie() {
    this.#reclaiming.abort()
    const stands = this.#frozen || this.#quiesced || this.#stall.words !== undefined
    await this.#stall.end()
    this.#frozen = this.#quiesced = false
    if (stands) await this.#deps.cgroups.thaw(this.#parts.cgroup)
  }

  async #saveRecord(record: ContainerRecord) {
    this.#record = record
    await writeRecord(join(this.#parts.dir, recordName), record)
  }
}
