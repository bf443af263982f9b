import { join } from 'node:path'
import type { Logger } from 'pino'
import type { AgentConnection } from '../../agent/connection.ts'
import type { CgroupTree } from '../../cgroups/cgroup-tree.ts'
import type { MounterClient } from '../../mounter/mounter-client.ts'
import type { ProcessIdentity } from '../../recover/process-identity.ts'
import { writeRecord } from '../../recover/record-file.ts'
import type { Sandbox, SandboxDeath, SandboxShape } from '../driver.ts'

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
}

export interface ContainerSandboxDeps {
  readonly mounter: MounterClient
  readonly cgroups: CgroupTree
  readonly logger: Logger
}

export interface ContainerSandboxParts {
  readonly record: ContainerRecord & { readonly process: ProcessIdentity }
  readonly dir: string
  readonly cgroup: string
  readonly agent: AgentConnection
  /** Frees what the driver lent, after the processes are dead. */
  readonly release: () => Promise<void>
}

const killTimeoutMs = 10_000

/**
 *     warm ──attach──▶ attached ──freeze──▶ frozen ──thaw──▶ attached
 *       └──────────────┴──────────── destroy, death ───┴──▶ gone
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
  #detached = false
  #frozen = false

  constructor(deps: ContainerSandboxDeps, parts: ContainerSandboxParts) {
    this.#deps = deps
    this.#parts = parts
    this.#record = parts.record
    this.agent = parts.agent
    this.died = this.#dead.promise
    parts.agent.closed.then((error) => this.#onAgentClosed(error))
  }

  get id() {
    return this.#record.id
  }

  get shape() {
    return this.#record.shape
  }

  async attach(shape: SandboxShape) {
    const { vcpus, memoryMb } = this.shape
    if (shape.vcpus !== vcpus || shape.memoryMb !== memoryMb) {
      await this.#deps.cgroups.setLimits(this.#parts.cgroup, { vcpus: shape.vcpus, memoryMb: shape.memoryMb })
    }
    this.#record = { ...this.#record, shape }
  }

  async freeze() {
    this.#frozen = true
    await this.#deps.cgroups.freeze(this.#parts.cgroup)
  }

  async thaw() {
    await this.#deps.cgroups.thaw(this.#parts.cgroup)
    this.#frozen = false
  }

  async ranOutOfMemory() {
    return (await this.#deps.cgroups.oomKills(this.#parts.cgroup)) > 0
  }

  async keep(keep: boolean) {
    await this.#saveRecord({ ...this.#record, keep })
  }

  async detach() {
    this.#detached = true
    this.agent.close()
  }

  destroy() {
    this.#destroying ??= this.#destroy({ reason: 'destroyed' })
    return this.#destroying
  }

  async #onAgentClosed(error: Error | undefined) {
    if (this.#detached || this.#destroying !== undefined) return
    // The agent is the first process: when it is gone, so is everything else. A connection refused for bad frames ends the sandbox, too.
    const outOfMemory = await this.ranOutOfMemory().catch(() => false)
    const words = outOfMemory ? `ran out of memory (limit ${this.shape.memoryMb} MB)` : (error?.message ?? 'its first process ended')
    this.#destroying ??= this.#destroy({ reason: words })
    await this.#destroying.catch((error: unknown) => this.#deps.logger.warn({ err: error, sandbox: this.id }, 'a dead sandbox could not be freed'))
  }

  async #destroy(death: SandboxDeath) {
    this.agent.close()
    if (this.#frozen) await this.thaw().catch(() => undefined)
    // Should the mounter be gone, then removing the control group ends the processes; this is only the fast way.
    await this.#deps.mounter.kill(this.#parts.record.process, killTimeoutMs).catch(() => undefined)
    this.#dead.resolve(death)
    await this.#parts.release()
  }

  async #saveRecord(record: ContainerRecord) {
    this.#record = record
    await writeRecord(join(this.#parts.dir, 'record.json'), record)
  }
}
