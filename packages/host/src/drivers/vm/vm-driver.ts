import { existsSync } from 'node:fs'
import { chown, mkdir, open, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { MagsError } from '@mags/protocol'
import type { Logger } from 'pino'
import { noAgent } from '../../agent/no-agent.ts'
import type { CgroupTree } from '../../cgroups/cgroup-tree.ts'
import type { Dialer } from '../../dialer/dialer-client.ts'
import type { Image } from '../../images/image-catalogue.ts'
import type { ProcessIdentity } from '../../recover/process-identity.ts'
import { readRecord, writeRecord } from '../../recover/record-file.ts'
import type { Sandbox, SandboxDriver, SandboxShape } from '../driver.ts'
import { hostnameOf, newSandboxId } from '../sandbox-id.ts'
import { type Accelerator, probeAccelerator } from './accelerator.ts'
import { connectAgentOf, type GuestParts, reconnectAgentOf } from './boot-guest.ts'
import { firstDiskName, workspaceDiskName } from './change-disk.ts'
import { findMachines } from './find-machines.ts'
import { freshState, networkOf, rootFiles } from './guest-identity.ts'
import { readGuestParts } from './guest-parts.ts'
import { adoptMachine, killProcess, type Machine, startMachine } from './machine.ts'
import { loadState } from './migrate.ts'
import type { RamSealer } from './ram-sealer.ts'
import { saveMachine, startSavedMachine, transferTimeoutMs } from './saved-machine.ts'
import { type TemplateParts, TemplateStore } from './template-store.ts'
import { memoryName, recordName, type VmRecord } from './vm-record.ts'
import { VmSandbox } from './vm-sandbox.ts'
import type { VmSandboxParts } from './vm-sandbox-parts.ts'
import { bootUid, type TapSource, type VmSlot, VmSlots } from './vm-slots.ts'
import { rehearse } from './warm-up.ts'
import { DiskSlot, lendDisk, makeWorkspaceDisk } from './workspace-disk.ts'

export interface VmDriverDeps {
  /** `<system>/kernels/current`: vmlinux and modules/. */
  readonly kernelDir: string
  /** The agent's binary, /init of every guest. */
  readonly agentPath: string
  /** Initramfs, templates, the probe's answer; kept between starts of the daemon, on a real disk. */
  readonly cacheDir: string
  /** A folder per machine; on a real disk, and short: socket paths end at 107 bytes. */
  readonly vmDir: string
  readonly images: { get(name: string, digest?: string): Image }
  /** The shape kept warm by default; its disk size is the one all warm machines have. */
  readonly defaultShape: SandboxShape
  /** Without it clones map the template's own file: for tests. */
  readonly sealer?: RamSealer
  /** Without it machines have a card without a wire: for tests. */
  readonly taps?: TapSource
  /** Makes connections into machines; without it their agents do. */
  readonly dialer?: Dialer
  readonly cgroups?: Pick<CgroupTree, 'create' | 'add' | 'oomKills' | 'remove' | 'children'>
  /** Parent of the machines' groups, e.g. `/mags/3f2a91/vm`. */
  readonly cgroupParent?: string
  /** Skips the probe. */
  readonly accelerator?: 'kvm' | 'tcg'
  readonly logger: Pick<Logger, 'info' | 'warn'>
}

/** QEMU's threads: one per processor, the main loop, and a pool for disk reads. */
const pidsLimit = 128
/** What QEMU needs besides the guest's memory: translation cache, device state, and the page cache of its disk. */
const qemuMemoryMb = 256

/** Reads what guests are made of, finds out whether KVM works, and opens the driver. Rejects with MagsError 'not_available' when something is missing, with what to do. */
export async function openVmDriver(deps: VmDriverDeps): Promise<VmDriver> {
  if (Buffer.byteLength(join(deps.vmDir, '0'.repeat(12), 'agent.sock')) > 107)
    throw new MagsError('not_available', `the path ${deps.vmDir} is too long for sockets; use a shorter one`)
  await Promise.all([mkdir(deps.vmDir, { recursive: true, mode: 0o711 }), mkdir(deps.cacheDir, { recursive: true, mode: 0o700 })])
  const image = deps.images.get(deps.defaultShape.image, deps.defaultShape.imageDigest)
  const parts = await readGuestParts({ ...deps, placeholderGb: deps.defaultShape.diskGb })
  const accelerator: Accelerator =
    deps.accelerator === undefined
      ? await probeAccelerator({ cacheDir: deps.cacheDir, vmDir: deps.vmDir, uid: bootUid, imageFile: image.erofsFile, guest: parts, logger: deps.logger })
      : { accelerator: deps.accelerator, detail: `${deps.accelerator} by configuration` }
  return new VmDriver(
    deps,
    { ...parts, accelerator: accelerator.accelerator, cpuModel: accelerator.accelerator === 'kvm' ? parts.cpuModel : '' },
    accelerator.detail,
  )
}

/** QEMU microVMs, restored from a template that has booted once. */
export class VmDriver implements SandboxDriver {
  readonly isolation: 'kvm' | 'emulated-vm'
  readonly rootAt = 'attach'
  readonly stacks = false
  /** How guests run here, for `doctor`. */
  readonly detail: string
  readonly #deps: VmDriverDeps
  readonly #guest: GuestParts
  readonly #templates: TemplateStore
  readonly #slots: VmSlots
  /** Ids of machines of ours, made or taken back; `sweep` leaves them alone. */
  readonly #ours = new Set<string>()
  /** Emulation is several times slower, on a busy host again. */
  readonly #timeoutMs: number

  constructor(deps: VmDriverDeps, guest: GuestParts, detail: string) {
    this.#deps = deps
    this.#guest = guest
    this.detail = detail
    this.isolation = guest.accelerator === 'kvm' ? 'kvm' : 'emulated-vm'
    this.#timeoutMs = guest.accelerator === 'kvm' ? 10_000 : 30_000
    this.#slots = new VmSlots(deps.taps, deps.logger)
    const { cacheDir, vmDir, sealer, logger } = deps
    const bootTimeoutMs = 2 * this.#timeoutMs
    this.#templates = new TemplateStore({ dir: join(cacheDir, 'templates'), vmDir, uid: bootUid, bootTimeoutMs, sealer, logger, ours: this.#ours })
  }

  /** Processors and memory are built in; the disk is swapped at attach. */
  warmShape(shape: SandboxShape): SandboxShape {
    return { ...shape, diskGb: this.#deps.defaultShape.diskGb }
  }

  /** Makes the template of this shape when there is none, which takes seconds; the pool does it ahead of time. */
  async create(shape: SandboxShape): Promise<Sandbox> {
    const parts = this.#partsOf(shape)
    // Before anything is taken: it may take long.
    await this.#templates.get(parts)
    return this.#restore(shape, parts)
  }

  /** Has the template of this shape on disk, at a low priority. */
  async prepare(shape: SandboxShape): Promise<void> {
    await this.#templates.prepare(this.#partsOf(shape))
  }

  async forgetImage(digest: string): Promise<void> {
    await this.#templates.forgetImage(digest)
  }

  #partsOf({ image: name, imageDigest, vcpus, memoryMb }: SandboxShape): TemplateParts {
    const image = this.#deps.images.get(name, imageDigest)
    return { imageDigest: image.digest, imageFile: image.erofsFile, vcpus, memoryMb, guest: this.#guest }
  }

  async #restore(shape: SandboxShape, parts: TemplateParts): Promise<Sandbox> {
    const { taps } = this.#deps
    await using undo = new AsyncDisposableStack()
    const { id, slot, directory } = await this.#claim(undo)
    const draft: VmRecord = { id, slot: slot.index, shape, attached: false, keep: false, imageFile: parts.imageFile, disk: firstDiskName }
    await writeRecord(join(directory, recordName), draft)
    await this.#createCgroup(id, shape)
    undo.defer(() => this.#removeCgroup(id))

    const makingDisk = makeWorkspaceDisk(join(directory, firstDiskName), shape.diskGb, slot.uid)
    makingDisk.catch(() => undefined)
    const { machine, record } = await this.#startClone(draft, parts, slot, directory)
    undo.defer(() => machine.kill())
    const [agent, disk] = await Promise.all([connectAgentOf(machine, join(directory, 'agent.sock'), this.#timeoutMs), makingDisk])
    undo.defer(() => agent.close())
    // Randomness first: what follows draws from it.
    const network = slot.tap === undefined ? {} : { network: networkOf(slot.tap) }
    const diskSlot = new DiskSlot(machine.qmp, parts.guest.placeholderGb * 2 ** 30)
    await Promise.all([agent.identity({ ...freshState(), ...network }), diskSlot.swapIn(disk)])
    await rehearse(agent, disk, { ...freshState(), ...rootFiles(hostnameOf(id), slot.tap, taps?.resolver) })
    await machine.qmp.execute('stop')
    const lent = undo.move()
    return this.#sandbox({ record, directory, slot, machine, agent, disk: diskSlot, release: () => lent.disposeAsync() })
  }

  /** QEMU with the template's memory and devices, and its guest running. */
  async #startClone(draft: VmRecord, parts: TemplateParts, slot: VmSlot, directory: string): Promise<{ machine: Machine; record: VmRecord }> {
    const { taps } = this.#deps
    const template = await this.#templates.get(parts)
    await using state = await open(template.stateFile, 'r')
    let record = draft
    const machine = await startMachine({
      config: { ...this.#config(draft, slot, directory), ramPath: template.ramPath, ramShared: false, incoming: true },
      ...(taps === undefined ? {} : { netnsPath: taps.routerNetnsPath }),
      fds: [state.fd],
      logFile: join(directory, 'qemu.log'),
      timeoutMs: this.#timeoutMs,
      onProcess: async (process) => {
        record = { ...draft, process }
        await Promise.all([writeRecord(join(directory, recordName), record), this.#deps.cgroups?.add(this.#cgroupOf(draft.id), process.pid)])
      },
    })
    try {
      await loadState(machine.qmp, { fd: 3, memory: false, timeoutMs: this.#timeoutMs })
      await machine.qmp.execute('cont')
      return { machine, record }
    } catch (error) {
      await machine.kill()
      // A template that cannot be loaded is of no use to the next one either.
      await this.#templates.discard(parts)
      const words = `${error instanceof Error ? error.message : error}; ${await machine.stopped}`
      throw new MagsError('sandbox_failed', `a virtual machine could not be restored from its template, which will be made anew: ${words}`, { cause: error })
    }
  }

  /** What all machines are started with; the rest is where their memory comes from. */
  #config(record: VmRecord, slot: VmSlot, directory: string) {
    const guest = this.#guest
    return {
      name: `mags-${record.id}`,
      accelerator: guest.accelerator,
      vcpus: record.shape.vcpus,
      memoryMb: record.shape.memoryMb,
      kernelPath: guest.kernelPath,
      initramfsPath: guest.initramfs.path,
      rootPath: record.imageFile ?? this.#deps.images.get(record.shape.image, record.shape.imageDigest).erofsFile,
      placeholderBytes: guest.placeholderGb * 2 ** 30,
      directory,
      qmpPath: join(directory, 'qmp'),
      agentPath: join(directory, 'agent.sock'),
      uid: slot.uid,
      ...(slot.tap === undefined ? {} : { tapName: slot.tap.tapName }),
      tscKhz: guest.tscKhz,
    } as const
  }

  /** QEMU with what a hibernated machine has saved; stopped. */
  async #startSaved(record: VmRecord, slot: VmSlot, directory: string, onProcess: (process: ProcessIdentity) => Promise<void>): Promise<Machine> {
    const { taps, cgroups } = this.#deps
    const diskPath = join(directory, record.disk ?? firstDiskName)
    await this.#createCgroup(record.id, record.shape)
    return await startSavedMachine(
      { ...this.#config(record, slot, directory), diskPath },
      {
        ...(taps === undefined ? {} : { netnsPath: taps.routerNetnsPath }),
        logFile: join(directory, 'qemu.log'),
        timeoutMs: transferTimeoutMs(record.shape.memoryMb, this.#timeoutMs),
        onProcess: async (process) => {
          await Promise.all([onProcess(process), cgroups?.add(this.#cgroupOf(record.id), process.pid)])
        },
      },
    )
  }

  async adopt(id: string): Promise<Sandbox | undefined> {
    // Ids come from the database; a path from nowhere else.
    if (!/^[0-9a-f]{12}$/.test(id) || this.#ours.has(id)) return undefined
    const directory = join(this.#deps.vmDir, id)
    const record = await readRecord<VmRecord>(join(directory, recordName))
    if (record === undefined || !record.attached || (record.process === undefined && !record.hibernated)) return undefined
    await using undo = new AsyncDisposableStack()
    this.#ours.add(id)
    undo.defer(() => void this.#ours.delete(id))
    const slot = this.#slots.adopt(record.slot)
    if (slot !== undefined) undo.defer(() => this.#slots.giveBack(slot))
    undo.defer(() => this.#free(id, directory))
    const { process } = record
    // Whatever of it runs is on its way out, or on its way back and not there yet.
    if (record.hibernated) for (const machine of await findMachines(this.#deps.vmDir)) if (machine.folder === id) await killProcess(machine.process)
    if (record.hibernated && process !== undefined) await killProcess(process)
    if (record.hibernated && slot !== undefined && existsSync(join(directory, memoryName))) {
      const lent = undo.move()
      return this.#sandbox({ record, directory, slot, machine: undefined, agent: noAgent(), release: () => lent.disposeAsync() })
    }
    if (process === undefined) return undefined
    undo.defer(() => killProcess(process))
    const machine = await adoptMachine(process, join(directory, 'qmp'), this.#timeoutMs)
    if (machine === undefined || slot === undefined) return undefined
    undo.defer(() => machine.kill())
    try {
      // One that slept is woken: its agent has to answer.
      await machine.qmp.execute('cont')
      const agent = await reconnectAgentOf(machine, join(directory, 'agent.sock'), this.#timeoutMs)
      undo.defer(() => agent.close())
      // The last daemon may have ended in the middle of a save.
      await Promise.all([agent.identity(freshState()), agent.thawDisk().catch(() => undefined)])
      const lent = undo.move()
      return this.#sandbox({ record: { ...record, asleep: false }, directory, slot, machine, agent, release: () => lent.disposeAsync() })
    } catch (error) {
      this.#deps.logger.warn({ err: error, sandbox: id }, 'a virtual machine of the last run does not answer; it is freed')
      return undefined
    }
  }

  async fork(source: Sandbox, disk?: string): Promise<Sandbox> {
    if (!(source instanceof VmSandbox)) throw new MagsError('internal', 'this is no virtual machine of ours')
    await using undo = new AsyncDisposableStack()
    const { id, slot, directory } = await this.#claim(undo)
    const diskFile = disk ?? join(directory, firstDiskName)
    const record: VmRecord = {
      id,
      slot: slot.index,
      shape: source.shape,
      attached: false,
      keep: false,
      imageFile: source.imageFile,
      disk: disk === undefined ? firstDiskName : workspaceDiskName,
      hibernated: true,
    }
    await writeRecord(join(directory, recordName), record)
    undo.defer(() => this.#removeCgroup(id))
    await source.copyTo({ directory, diskFile })
    if (disk === undefined) await chown(diskFile, slot.uid, slot.uid)
    else await lendDisk(disk, join(directory, workspaceDiskName), slot.uid)
    const lent = undo.move()
    return this.#sandbox({ record, directory, slot, machine: undefined, agent: noAgent(), release: () => lent.disposeAsync() })
  }

  /** An id with its folder, and a slot. */
  async #claim(undo: AsyncDisposableStack): Promise<{ id: string; slot: VmSlot; directory: string }> {
    const id = newSandboxId()
    this.#ours.add(id)
    undo.defer(() => void this.#ours.delete(id))
    const slot = await this.#slots.take()
    undo.defer(() => this.#slots.giveBack(slot))
    const directory = join(this.#deps.vmDir, id)
    await mkdir(directory, { mode: 0o710 })
    undo.defer(() => rm(directory, { recursive: true, force: true }))
    await chown(directory, 0, slot.uid)
    return { id, slot, directory }
  }

  async sweep() {
    const { vmDir, cgroups, cgroupParent } = this.#deps
    const dead = new Set<string>()
    for (const machine of await findMachines(vmDir)) {
      if (this.#ours.has(machine.folder)) continue
      await killProcess(machine.process)
    }
    for (const id of (await cgroups?.children(cgroupParent ?? '')) ?? []) dead.add(id)
    for (const id of await readdir(vmDir).catch(() => [])) dead.add(id)
    for (const id of dead) if (!this.#ours.has(id)) await this.#free(id, join(vmDir, id))
    await this.#templates.prune()
  }

  async close() {
    await this.#templates.close()
  }

  #sandbox(parts: Pick<VmSandboxParts, 'record' | 'directory' | 'machine' | 'agent' | 'disk' | 'release'> & { readonly slot: VmSlot }): VmSandbox {
    const { slot, ...rest } = parts
    const { id, shape } = parts.record
    const { directory } = parts
    const { uid } = slot
    return new VmSandbox({
      ...rest,
      isolation: this.isolation,
      uid,
      tap: slot.tap,
      dialer: this.#deps.dialer,
      resolver: this.#deps.taps?.resolver,
      timeoutMs: this.#timeoutMs,
      connect: (machine) => connectAgentOf(machine, join(directory, 'agent.sock'), this.#timeoutMs),
      save: (machine, target) =>
        saveMachine(machine, { directory, target, uid, memoryMb: shape.memoryMb, timeoutMs: transferTimeoutMs(shape.memoryMb, this.#timeoutMs) }),
      revive: (record, onProcess) => this.#startSaved(record, slot, directory, onProcess),
      ranOutOfMemory: async () => ((await this.#deps.cgroups?.oomKills(this.#cgroupOf(id))) ?? 0) > 0,
    })
  }

  async #free(id: string, directory: string) {
    await this.#removeCgroup(id)
    await rm(directory, { recursive: true, force: true })
  }

  #cgroupOf(id: string) {
    return `${this.#deps.cgroupParent ?? '/mags/vm'}/${id}`
  }

  async #createCgroup(id: string, shape: SandboxShape) {
    await this.#deps.cgroups?.create(this.#cgroupOf(id), { vcpus: shape.vcpus + 0.25, memoryMb: shape.memoryMb + qemuMemoryMb, pids: pidsLimit })
  }

  async #removeCgroup(id: string) {
    await this.#deps.cgroups?.remove(this.#cgroupOf(id))
  }
}
