import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Logger } from 'pino'
import { connectAgent } from '../../agent/connect-agent.ts'
import type { AgentIdentity } from '../../agent/connection.ts'
import type { CgroupTree } from '../../cgroups/cgroup-tree.ts'
import type { ImageCatalogue } from '../../images/image-catalogue.ts'
import type { MounterClient } from '../../mounter/mounter-client.ts'
import type { SandboxNetwork } from '../../network/sandbox-network.ts'
import { identifyProcess, isAlive, type ProcessIdentity } from '../../recover/process-identity.ts'
import { readRecord, readRecords, writeRecord } from '../../recover/record-file.ts'
import type { Sandbox, SandboxDriver, SandboxShape } from '../driver.ts'
import { hostnameOf, newSandboxId } from '../sandbox-id.ts'
import { type ContainerRecord, ContainerSandbox } from './container-sandbox.ts'
import { type ContainerSlot, ContainerSlots } from './container-slots.ts'
import { ociConfig } from './oci-config.ts'

export interface ContainerDriverDeps {
  readonly runtime: 'crun'
  readonly mounter: MounterClient
  readonly mounterBinary: string
  readonly cgroups: CgroupTree
  /** Parent of the sandboxes' groups, e.g. `/mags/3f2a91`. */
  readonly cgroupParent: string
  readonly network: SandboxNetwork
  readonly images: ImageCatalogue
  /** Sockets, records, configurations: a short path on tmpfs. */
  readonly runDir: string
  readonly scratchDir: string
  readonly warmRootDir: string
  readonly seccompBpf: string
  readonly defaultShape: SandboxShape
  readonly logger: Logger
}

const pidsLimit = 1024
const createTimeoutMs = 10_000
const recordName = 'record.json'

/**
 * Containers by an OCI runtime, kept warm. Each starts with only the agent in a tiny read-only root, with its namespaces, limits, filters and network in place; then the root file system
 * (image under a fresh upper) is swapped in under it, by native/mounter. All that is done ahead of time: a job that comes only changes limits on processors and memory, if it wants others.
 */
export class ContainerDriver implements SandboxDriver {
  readonly isolation = 'container'
  readonly #deps: ContainerDriverDeps
  readonly #slots: ContainerSlots
  readonly #adopted = new Set<string>()

  constructor(deps: ContainerDriverDeps) {
    this.#deps = deps
    this.#slots = new ContainerSlots({ ...deps, diskGb: deps.defaultShape.diskGb })
  }

  warmShape(shape: SandboxShape): SandboxShape {
    const { vcpus, memoryMb } = this.#deps.defaultShape
    return { ...shape, vcpus, memoryMb }
  }

  async create(shape: SandboxShape): Promise<Sandbox> {
    await using undo = new AsyncDisposableStack()
    const { cgroups, images, defaultShape } = this.#deps
    const image = images.get(shape.image)
    const slot = await this.#slots.take()
    undo.defer(() => this.#slots.giveBack(slot))
    const id = newSandboxId()
    const dir = join(this.#deps.runDir, id)
    const cgroup = `${this.#deps.cgroupParent}/${id}`
    mkdirSync(dir, { recursive: true, mode: 0o700 })
    undo.defer(() => removeRunFolder(dir))
    const draft: ContainerRecord = { id, slot: slot.index, shape, ownDisk: shape.diskGb !== defaultShape.diskGb, keep: false }
    await writeRecord(join(dir, recordName), draft)
    const upperDir = draft.ownDisk ? await this.#slots.makeDisk(id, shape.diskGb) : slot.scratchDir
    if (draft.ownDisk) undo.defer(() => this.#slots.removeDisk(id))
    undo.defer(() => cgroups.remove(cgroup))
    const process = await this.#startRuntime(id, dir, cgroup, slot, shape)
    // The runtime limits memory but not swap.
    await cgroups.setLimits(cgroup, { memoryMb: shape.memoryMb })
    const agent = await connectAgent(join(dir, 'agent.sock'), { timeoutMs: createTimeoutMs })
    undo.defer(() => agent.close())
    await this.#deps.mounter.attach({ process, uidBase: slot.uidBase, volatile: true, lowerDirs: [image.rootfsDir], upperDir })
    await agent.identity(identityFiles(hostnameOf(id), slot.network.address, this.#deps.network.resolver))
    const record = { ...draft, process }
    await writeRecord(join(dir, recordName), record)
    const lent = undo.move()
    return new ContainerSandbox(this.#deps, { record, dir, cgroup, agent, release: () => lent.disposeAsync() })
  }

  async adopt(id: string): Promise<Sandbox | undefined> {
    const dir = join(this.#deps.runDir, id)
    const record = await readRecord<ContainerRecord>(join(dir, recordName))
    const process = record?.process
    if (record === undefined || process === undefined || !(await isAlive(process))) return undefined
    const cgroup = `${this.#deps.cgroupParent}/${id}`
    const agent = await connectAgent(join(dir, 'agent.sock'), { timeoutMs: createTimeoutMs }).catch((error: unknown) => {
      this.#deps.logger.warn({ err: error, sandbox: id }, 'a sandbox of the last run does not answer; it is freed')
      return undefined
    })
    if (agent === undefined) return undefined
    const network = await this.#deps.network.adoptContainerSlot(record.slot, process.pid)
    this.#adopted.add(id)
    this.#slots.reserve(record.slot)
    const release = async () => {
      await this.#deps.cgroups.remove(cgroup)
      await this.#free(record, dir)
      // Its disk was mounted by the last daemon's mounter and cannot be had back, so this slot is not recycled but freed.
      await rm(join(this.#deps.scratchDir, `${record.slot}.img`), { force: true })
      if (network !== undefined) await this.#deps.network.free(network)
      this.#slots.forget(record.slot)
    }
    return new ContainerSandbox(this.#deps, { record: { ...record, process }, dir, cgroup, agent, release })
  }

  async sweep() {
    const { cgroups, cgroupParent, runDir, scratchDir } = this.#deps
    // Groups first: that ends processes even of a container whose record was never finished.
    const groups = (await cgroups.children(cgroupParent)).filter((id) => !this.#adopted.has(id))
    await Promise.all(groups.map((id) => cgroups.remove(`${cgroupParent}/${id}`)))
    const kept = new Set<string>()
    for (const { name, dir, record } of await readRecords<ContainerRecord>(runDir, recordName)) {
      if (!this.#adopted.has(name)) await this.#free(record, dir)
      else for (const file of [`${record.slot}`, name]) kept.add(file)
    }
    for (const name of await readdir(scratchDir).catch(() => [])) {
      if (!kept.has(name.replace(/\.img$/, ''))) await rm(join(scratchDir, name), { recursive: true, force: true })
    }
  }

  async close() {
    // Slots are files and mounts of helpers that end with the daemon; nothing of the driver's own is left.
  }

  /** Starts the container; resolves with its first process, the agent. */
  async #startRuntime(id: string, dir: string, cgroupsPath: string, slot: ContainerSlot, shape: SandboxShape): Promise<ProcessIdentity> {
    const { warmRootDir, seccompBpf, runtime, mounterBinary } = this.#deps
    const config = ociConfig({
      hostname: hostnameOf(id),
      warmRootDir,
      netnsPath: slot.network.netnsPath,
      cgroupsPath,
      uidBase: slot.uidBase,
      shape,
      pidsLimit,
      seccompBpf,
      args: ['/agent', 'container'],
    })
    writeFileSync(join(dir, 'config.json'), JSON.stringify(config))
    const pidFile = join(dir, 'pid')
    const listen = [mounterBinary, 'listen', join(dir, 'agent.sock')]
    const start = [runtime, '--root', join(dir, 'runtime'), '--cgroup-manager=cgroupfs', 'run', '--detach', '--preserve-fds=1']
    const argv = [...listen, ...start, '--pid-file', pidFile, '--bundle', dir, id]
    const code = await this.#deps.mounter.run(argv, { logFile: join(dir, 'runtime.log'), timeoutMs: createTimeoutMs })
    if (code !== 0) throw new Error(`${runtime} could not start a container (exit ${code}): ${await lastWords(dir)}`)
    const pid = Number(readFileSync(pidFile, 'utf8'))
    const process = await identifyProcess(pid)
    if (process === undefined) throw new Error(`the sandbox's first process ended at once: ${await lastWords(dir)}`)
    await shieldFromOom(pid)
    return process
  }

  async #free(record: ContainerRecord, dir: string) {
    if (record.ownDisk) await this.#slots.removeDisk(record.id)
    removeRunFolder(dir)
  }
}

function identityFiles(hostname: string, address: string, resolver: string): AgentIdentity {
  return {
    hostname,
    hosts: `127.0.0.1\tlocalhost\n${address}\t${hostname}\n`,
    resolvConf: `nameserver ${resolver}\n`,
    machineId: `${crypto.randomUUID().replaceAll('-', '')}\n`,
  }
}

/** A handful of small files on tmpfs: quicker done than handed to another thread. */
function removeRunFolder(dir: string) {
  rmSync(dir, { recursive: true, force: true })
}

/** The agent goes last when memory runs out; what it starts goes back to 0. Without CAP_SYS_RESOURCE the kernel refuses, and the agent is one among others. */
async function shieldFromOom(pid: number) {
  await writeFile(`/proc/${pid}/oom_score_adj`, '-999').catch(() => undefined)
}

async function lastWords(dir: string) {
  const text = await readFile(join(dir, 'runtime.log'), 'utf8').catch(() => '')
  return text.trim().slice(-500) || 'it said nothing'
}
