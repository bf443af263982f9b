import { mkdirSync, rmdirSync, rmSync } from 'node:fs'
import { readdir, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { MagsError } from '@mags/protocol'
import type { Logger } from 'pino'
import { connectAgent } from '../../agent/connect-agent.ts'
import type { AgentIdentity } from '../../agent/connection.ts'
import type { CgroupTree } from '../../cgroups/cgroup-tree.ts'
import type { Dialer } from '../../dialer/dialer-client.ts'
import type { Image, ImageCatalogue } from '../../images/image-catalogue.ts'
import type { MounterClient } from '../../mounter/mounter-client.ts'
import type { SandboxNetwork } from '../../network/sandbox-network.ts'
import { isAlive, type ProcessIdentity } from '../../recover/process-identity.ts'
import { readRecord, readRecords, writeRecord } from '../../recover/record-file.ts'
import { run } from '../../run.ts'
import type { DiskRoom } from '../disk-room.ts'
import type { Sandbox, SandboxDriver, SandboxRoot, SandboxShape } from '../driver.ts'
import { hostnameOf, newSandboxId } from '../sandbox-id.ts'
import { copyDisk, repairDisk } from '../scratch-disk.ts'
import { AdoptedRoot } from './adopted-root.ts'
import { type ComposedRoot, ContainerRoot } from './container-root.ts'
import { type ContainerRecord, ContainerSandbox, recordName } from './container-sandbox.ts'
import { type ContainerSlot, ContainerSlots } from './container-slots.ts'
import { DiskMounts } from './disk-mounts.ts'
import type { OciRuntime } from './oci-runtime.ts'
import { noWorkspaces, type RootMode } from './root-mode.ts'
import { ShiftedImages } from './shifted-images.ts'
import { startContainer } from './start-container.ts'

export interface ContainerDriverDeps {
  readonly runtime: OciRuntime
  /** What is started: the runtime, or a sealed copy of it. */
  readonly runtimeProgram: string
  readonly rootMode: RootMode
  /** What kind of wall this is and why, in words. */
  readonly detail: string
  readonly mounter: MounterClient
  /** Makes connections into sandboxes; without it their agents do. */
  readonly dialer?: Dialer
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
  /** Where roots are mounted for containers that start with theirs: every folder on the way is open to search. */
  readonly rootsDir: string
  readonly seccompBpf: string | undefined
  readonly defaultShape: SandboxShape
  /** Room on the disk that `scratchDir` is on, and the disks of workspaces; without it nobody looks. */
  readonly room?: DiskRoom
  readonly logger: Logger
}

const pidsLimit = 1024
const createTimeoutMs = 10_000

/**
 * Containers by an OCI runtime, kept warm, with namespaces, limits, filters and network in place and the image under a fresh upper layer as their root. All that is done ahead of time: a job that comes only
 * changes limits on processors and memory, if it wants others, and swaps the root, if it has a workspace. Where roots cannot be swapped, see {@link RootMode}, a workspace's sandbox is made for it.
 */
export class ContainerDriver implements SandboxDriver {
  readonly isolation = 'container'
  readonly stacks = true
  readonly #deps: ContainerDriverDeps
  readonly #disks: DiskMounts
  readonly #slots: ContainerSlots
  readonly #shifted: ShiftedImages
  readonly #adopted = new Set<string>()

  constructor(deps: ContainerDriverDeps) {
    this.#deps = deps
    this.#disks = new DiskMounts({ ...deps, dir: join(deps.scratchDir, '..', 'layers-mounted') })
    this.#slots = new ContainerSlots({ ...deps, diskGb: deps.defaultShape.diskGb })
    this.#shifted = new ShiftedImages(deps)
  }

  get rootAt() {
    return this.#deps.rootMode === 'swap' ? 'attach' : 'create'
  }

  /** What kind of wall this is and why, in words. */
  get detail() {
    return this.#deps.detail
  }

  warmShape(shape: SandboxShape): SandboxShape {
    const { vcpus, memoryMb } = this.#deps.defaultShape
    return { ...shape, vcpus, memoryMb }
  }

  async create(shape: SandboxShape, root?: SandboxRoot): Promise<Sandbox> {
    if (root !== undefined && this.#deps.rootMode === 'shifted') throw noWorkspaces()
    await using undo = new AsyncDisposableStack()
    const { cgroups, images, defaultShape } = this.#deps
    const image = images.get(shape.image, shape.imageDigest)
    const slot = await this.#slots.take()
    undo.defer(() => this.#slots.giveBack(slot))
    const id = newSandboxId()
    const dir = join(this.#deps.runDir, id)
    const cgroup = `${this.#deps.cgroupParent}/${id}`
    mkdirSync(dir, { recursive: true, mode: 0o700 })
    undo.defer(() => removeRunFolder(dir))
    const ownDisk = root?.upperDisk === undefined && shape.diskGb !== defaultShape.diskGb
    const draft: ContainerRecord = { id, slot: slot.index, shape, ownDisk, keep: false, ...(root === undefined ? {} : { root }) }
    await writeRecord(join(dir, recordName), draft)
    const scratchDir = ownDisk ? await this.#slots.makeDisk(id, shape.diskGb) : slot.scratchDir
    if (ownDisk) undo.defer(() => this.#slots.removeDisk(id))
    const layers = new ContainerRoot({ ...this.#deps, disks: this.#disks, imageDirs: await this.#imageDirs(slot, image), scratchDir })
    undo.defer(() => layers.release())
    const composed = await layers.compose(root)
    undo.defer(() => cgroups.remove(cgroup))
    const process = await this.#start({ id, dir, cgroup, slot, shape, composed })
    // The runtime limits memory but not swap.
    await cgroups.setLimits(cgroup, { memoryMb: shape.memoryMb })
    const agent = await connectAgent(join(dir, 'agent.sock'), { timeoutMs: createTimeoutMs })
    undo.defer(() => agent.close())
    if (this.rootAt === 'attach') await this.#deps.mounter.attach({ process, uidBase: slot.uidBase, ...composed })
    const identity = identityFiles(hostnameOf(id), slot.network.address, this.#deps.network.resolver)
    const identify = async (given: SandboxRoot | undefined) => {
      // A tenant's disk may be full, or have a folder in the place of a file: it gets a sandbox all the same, in which that can be put right.
      await agent.identity(identity).catch((error: unknown) => {
        if (given?.upperDisk === undefined) throw error
        this.#deps.logger.warn({ err: error, sandbox: id }, 'host name and resolver could not be written into a workspace')
      })
    }
    await identify(root)
    const record = { ...draft, process }
    await writeRecord(join(dir, recordName), record)
    const swapRoot = async (next: SandboxRoot) => {
      await this.#deps.mounter.attach({ process, uidBase: slot.uidBase, ...(await layers.compose(next)) })
      await identify(next)
    }
    const lent = undo.move()
    const parts = { record, dir, cgroup, agent, root: layers, network: slot.network, release: () => lent.disposeAsync() }
    return new ContainerSandbox(this.#deps, this.rootAt === 'attach' ? { ...parts, swapRoot } : parts)
  }

  async adopt(id: string): Promise<Sandbox | undefined> {
    const dir = join(this.#deps.runDir, id)
    const record = await readRecord<ContainerRecord>(join(dir, recordName))
    const process = record?.process
    if (record === undefined || process === undefined || !(await isAlive(process))) return undefined
    const cgroup = `${this.#deps.cgroupParent}/${id}`
    // It slept, or its root was held for a save: in either case its agent has to answer.
    await this.#deps.cgroups.thaw(cgroup).catch(() => undefined)
    const agent = await connectAgent(join(dir, 'agent.sock'), { timeoutMs: createTimeoutMs }).catch((error: unknown) => {
      this.#deps.logger.warn({ err: error, sandbox: id }, 'a sandbox of the last run does not answer; it is freed')
      return undefined
    })
    if (agent === undefined) return undefined
    const network = await this.#deps.network.adoptContainerSlot(record.slot, process.pid)
    this.#adopted.add(id)
    this.#slots.reserve(record.slot)
    const scratchFile = join(this.#deps.scratchDir, `${record.ownDisk ? id : record.slot}.img`)
    const root = new AdoptedRoot({
      disks: this.#disks,
      root: record.root,
      scratchFile,
      scratchFolder: record.swapped ? 'second' : '.',
      logger: this.#deps.logger,
    })
    await root.retake()
    const release = async () => {
      await root.release()
      await this.#deps.cgroups.remove(cgroup)
      await this.#free(record, dir)
      const lent = record.root?.upperDisk
      if (lent !== undefined && dirname(lent) === this.#deps.scratchDir) await rm(lent, { force: true })
      // Its slot was made by the last daemon and is not recycled but freed.
      for (const name of [`${record.slot}.img`, `${record.slot}.shifted`]) await rm(join(this.#deps.scratchDir, name), { recursive: true, force: true })
      if (network !== undefined) await this.#deps.network.free(network)
      this.#slots.forget(record.slot)
    }
    const sandbox = new ContainerSandbox(this.#deps, { record: { ...record, process, asleep: false }, dir, cgroup, agent, root, network, release })
    sandbox.resumeWatch()
    return sandbox
  }

  async copyUpper(sandbox: Sandbox, file = join(this.#deps.scratchDir, `${newSandboxId()}.img`)): Promise<string> {
    const { mounter, scratchDir, runDir, rootMode } = this.#deps
    if (rootMode === 'shifted')
      throw new MagsError(
        'not_available',
        'containers cannot be forked on this machine: its kernel cannot map the ids of an overlay\'s layers. Use isolation "vm"',
      )
    const dir = join(runDir, sandbox.id)
    const record = await readRecord<ContainerRecord>(join(dir, recordName))
    if (!(sandbox instanceof ContainerSandbox) || record === undefined) throw new MagsError('internal', 'this is no container of ours')
    const { root } = record
    if (root !== undefined && root.lowerDisks.length > 0)
      throw new MagsError('not_available', 'a sandbox that started from a workspace without having it for itself cannot be forked')
    const from = root?.upperDisk ?? join(scratchDir, `${record.ownDisk ? record.id : record.slot}.img`)
    try {
      await sandbox.quiesce()
      try {
        // What its programs have written is in the page cache of its file system still; then all of it is in the file.
        await run('sync', ['-f', `/proc/${mounter.pid}/root${await sandbox.layerDir()}`])
        await copyDisk(from, file)
      } finally {
        await sandbox.resume()
      }
      await repairDisk(file)
      return file
    } catch (error) {
      await rm(file, { force: true })
      throw error
    }
  }

  async forgetImage(digest: string) {
    await this.#shifted.forget(digest)
  }

  async sweep() {
    const { cgroups, cgroupParent, runDir, scratchDir, rootsDir } = this.#deps
    // Groups first: that ends processes even of a container whose record was never finished.
    const groups = (await cgroups.children(cgroupParent)).filter((id) => !this.#adopted.has(id))
    await Promise.all(groups.map((id) => cgroups.remove(`${cgroupParent}/${id}`)))
    const kept = new Set<string>()
    for (const { name, dir, record } of await readRecords<ContainerRecord>(runDir, recordName)) {
      if (!this.#adopted.has(name)) await this.#free(record, dir)
      else for (const file of [`${record.slot}`, name, basename(record.root?.upperDisk ?? '', '.img')]) kept.add(file)
    }
    for (const name of await readdir(scratchDir).catch(() => [])) {
      if (!kept.has(name.replace(/\.(img|shifted)$/, ''))) await rm(join(scratchDir, name), { recursive: true, force: true })
    }
    await this.#disks.sweep()
    await rm(rootsDir, { recursive: true, force: true })
  }

  async close() {
    // Slots and mounts are of helpers that end with the daemon.
    await this.#disks.close()
    await rm(this.#deps.rootsDir, { recursive: true, force: true })
  }

  async #imageDirs(slot: ContainerSlot, image: Image): Promise<string[]> {
    if (this.#deps.rootMode !== 'shifted') return [image.rootfsDir]
    return this.#shifted.layers({ slot: slot.index, uidBase: slot.uidBase, image })
  }

  /** Starts the container, with its own root or with the one all share; resolves with its first process, the agent. */
  async #start(input: { id: string; dir: string; cgroup: string; slot: ContainerSlot; shape: SandboxShape; composed: ComposedRoot }): Promise<ProcessIdentity> {
    const { id, dir, cgroup, slot, shape, composed } = input
    const { mounter, warmRootDir, rootsDir, rootMode } = this.#deps
    const common = {
      id,
      dir,
      hostname: hostnameOf(id),
      netnsPath: slot.network.netnsPath,
      cgroupsPath: cgroup,
      uidBase: slot.uidBase,
      shape,
      pidsLimit,
      timeoutMs: createTimeoutMs,
    }
    if (rootMode === 'swap') return startContainer(this.#deps, { ...common, root: { path: warmRootDir, readonly: true } })
    await using undo = new AsyncDisposableStack()
    const path = join(rootsDir, id)
    mkdirSync(path, { recursive: true, mode: 0o755 })
    undo.defer(() => rmdirSync(path))
    await mounter.mountRoot({ dir: path, uidBase: slot.uidBase, shifted: rootMode === 'shifted', ...composed })
    // The container has it in its own mounts once it runs.
    undo.defer(() => mounter.unmountRoot(path))
    return await startContainer(this.#deps, { ...common, root: { path, readonly: false }, lentAgent: join(warmRootDir, 'agent') })
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
