import type { Logger } from 'pino'
import type { SandboxNetwork, TapSlot } from '../../network/sandbox-network.ts'

/** Where taps come from. */
export type TapSource = Pick<SandboxNetwork, 'routerNetnsPath' | 'resolver' | 'createTapSlot' | 'adoptTapSlot' | 'renew'>

/** What a machine borrows besides its files: a number, the user of that number, and a tap. */
export interface VmSlot {
  readonly index: number
  readonly uid: number
  readonly tap: TapSlot | undefined
}

/** Above the ranges of distributions, systemd-nspawn (up to 1,879,048,191) and the containers'; below 2^31. */
const firstUid = 1_879_048_192
export const maxVms = 500

/** The user under which templates are made and KVM is tried. */
export const bootUid = firstUid + maxVms

/**
 * Numbers in use, each with its user and tap. They are recycled, the one that rested longest first:
 *
 *     free ──take──▶ lent ──giveBack──▶ connections cut ──▶ free
 */
export class VmSlots {
  readonly #taps: TapSource | undefined
  readonly #logger: Pick<Logger, 'warn'>
  readonly #free: VmSlot[] = []
  readonly #used = new Set<number>()

  constructor(taps: TapSource | undefined, logger: Pick<Logger, 'warn'>) {
    this.#taps = taps
    this.#logger = logger
  }

  /** Takes the number of a machine of an earlier daemon; undefined when its tap is gone. */
  adopt(index: number): VmSlot | undefined {
    const tap = this.#taps?.adoptTapSlot(index)
    if (this.#taps !== undefined && tap === undefined) return undefined
    this.#used.add(index)
    return { index, uid: firstUid + index, tap }
  }

  async take(): Promise<VmSlot> {
    const rested = this.#free.shift()
    if (rested !== undefined) return rested
    let index = 0
    while (this.#used.has(index)) index++
    if (index >= maxVms) throw new Error(`all ${maxVms} virtual machines of this host are in use`)
    this.#used.add(index)
    try {
      return { index, uid: firstUid + index, tap: await this.#taps?.createTapSlot(index) }
    } catch (error) {
      this.#used.delete(index)
      throw error
    }
  }

  /** For a machine that is dead. Connections it had open are cut before the next one gets its address. */
  async giveBack(slot: VmSlot): Promise<void> {
    try {
      if (slot.tap !== undefined) await this.#taps?.renew(slot.tap)
      this.#free.push(slot)
    } catch (error) {
      // The number stays used: a slot in an unknown state is never lent again.
      this.#logger.warn({ err: error, slot: slot.index }, 'the network of a dead virtual machine could not be cleaned; its slot is set aside')
    }
  }
}
