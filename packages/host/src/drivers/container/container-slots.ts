import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Logger } from 'pino'
import type { MounterClient } from '../../mounter/mounter-client.ts'
import type { ContainerSlot as NetworkSlot, SandboxNetwork } from '../../network/sandbox-network.ts'
import { makeScratchDisk } from '../scratch-disk.ts'
import { idsPerSandbox } from './oci-config.ts'

/**
 * What a container borrows and gives back: a range of ids, a network namespace with its address, and a scratch disk. All three are dear to make (about 40 ms) and hold
 * nothing of the last tenant once its processes are dead and the disk is emptied, so they are recycled, longest rested first.
 */
export interface ContainerSlot {
  readonly index: number
  readonly uidBase: number
  readonly network: NetworkSlot
  /** Where the scratch disk is mounted, in the mounter's namespace; holds `u` and `w`, both empty. */
  readonly scratchDir: string
}

export interface ContainerSlotsDeps {
  readonly mounter: MounterClient
  readonly network: SandboxNetwork
  /** Holds the disk images; on a real disk. */
  readonly scratchDir: string
  readonly diskGb: number
  readonly logger: Logger
}

/** A multiple of the range's size, above what distributions hand out to users (524,288 and up, in small ranges) and, with all slots, below what systemd-nspawn ends with and 2^31. */
const firstUid = 15_259 * idsPerSandbox
export const maxSlots = 12_000
/** A disk that held more than this is made anew rather than emptied. */
const emptyAtMost = 20_000

export class ContainerSlots {
  readonly #deps: ContainerSlotsDeps
  readonly #free: ContainerSlot[] = []
  readonly #used = new Set<number>()

  constructor(deps: ContainerSlotsDeps) {
    this.#deps = deps
  }

  /** Keeps a slot of a sandbox that outlived an earlier daemon from being made a second time, until it is freed. */
  reserve(index: number) {
    this.#used.add(index)
  }

  /** Forgets a slot whose resources are gone. */
  forget(index: number) {
    this.#used.delete(index)
  }

  async take(): Promise<ContainerSlot> {
    return this.#free.shift() ?? (await this.#make())
  }

  /** For a sandbox whose processes are all dead. Emptying the disk and cutting the connections happens in the background. */
  giveBack(slot: ContainerSlot) {
    Promise.all([this.#empty(slot), this.#deps.network.renew(slot.network)]).then(
      () => this.#free.push(slot),
      // The index stays used: a slot in an unknown state is never handed out again.
      (error: unknown) => this.#deps.logger.warn({ err: error, slot: slot.index }, 'a slot could not be cleaned; it is set aside'),
    )
  }

  async #make(): Promise<ContainerSlot> {
    const index = this.#nextIndex()
    this.#used.add(index)
    try {
      const [network, scratchDir] = await Promise.all([this.#deps.network.createContainerSlot(index), this.#makeScratch(index)])
      const uidBase = firstUid + index * idsPerSandbox
      await this.#deps.mounter.prepare(uidBase)
      return { index, uidBase, network, scratchDir }
    } catch (error) {
      this.#used.delete(index)
      throw error
    }
  }

  /** A disk of another size for one sandbox; resolves with where it is mounted, empty. */
  makeDisk(id: string, diskGb: number) {
    return this.#mountNew(id, diskGb)
  }

  /** Removes such a disk; no error when it is gone already. */
  async removeDisk(id: string) {
    const dir = join(this.#deps.scratchDir, id)
    await this.#deps.mounter.unmount(dir).catch(() => undefined)
    await rm(`${dir}.img`, { force: true })
    await rm(dir, { recursive: true, force: true })
  }

  #nextIndex() {
    for (let index = 0; index < maxSlots; index++) if (!this.#used.has(index)) return index
    throw new Error(`all ${maxSlots} sandbox slots of this machine are in use`)
  }

  #makeScratch(index: number) {
    return this.#mountNew(`${index}`, this.#deps.diskGb)
  }

  async #mountNew(name: string, diskGb: number) {
    const dir = join(this.#deps.scratchDir, name)
    const file = `${dir}.img`
    await mkdir(dir, { recursive: true, mode: 0o700 })
    await makeScratchDisk(file, diskGb)
    await this.#deps.mounter.mountImage(file, dir)
    await this.#deps.mounter.resetUpper(dir)
    return dir
  }

  async #empty(slot: ContainerSlot) {
    const removed = await this.#deps.mounter.resetUpper(slot.scratchDir)
    if (removed < emptyAtMost) return
    await this.#deps.mounter.unmount(slot.scratchDir)
    await rm(`${slot.scratchDir}.img`, { force: true })
    await this.#makeScratch(slot.index)
  }
}
