import { type LeasedAddresses, MagsError } from '@mags/protocol'
import { runAny } from '../run.ts'
import { planSlot } from './address-plan.ts'
import { addAddress6, closeOldPath, type LeasePathDeps, leasedAddresses, openOldPath, removeAddress6 } from './lease-paths.ts'
import { leaseScript } from './lease-rules.ts'
import { networkError } from './network-error.ts'
import type { LiveSlot } from './router-rules.ts'
import type { SlotUse } from './slot-use.ts'

export interface AddressLeasesDeps extends LeasePathDeps {
  /** Of the host. */
  readonly table: string
  readonly hasDefaultPolicy: boolean
  readonly slots: Map<string, LiveSlot>
  /** Everything that changes rules or `slots` goes through this. */
  readonly serial: <T>(task: () => Promise<T>) => Promise<T>
  readonly runNft: (script: string) => Promise<void>
  /** Pin of a container's namespace. */
  readonly netnsPathOf: (slot: LiveSlot) => string
}

/** The operator's addresses that sandboxes of a network have. Who has which is the server's to say; what is here is in the kernel, where the next daemon finds it. Part of `SandboxNetwork`. */
export class AddressLeases {
  readonly #deps: AddressLeasesDeps

  constructor(deps: AddressLeasesDeps) {
    this.#deps = deps
  }

  /**
   * Leads addresses to a sandbox until its use of the slot ends; they count once settled. A sandbox that had one of them before loses it. A virtual machine has to be told its IPv6 address
   * besides; what it keeps of one that it lost leads nowhere. Rejects with MagsError `sandbox_failed` when the use has ended.
   */
  async give(use: SlotUse, lease: LeasedAddresses) {
    await this.#deps.serial(async () => {
      const before = this.#deps.slots.get(use.link)
      if (use.ended || before === undefined) throw new MagsError('sandbox_failed', 'the sandbox ended before it had its address')
      await networkError(() => this.#give(before, lease))
    })
  }

  /** What has to go before the rules of these slots do. In `serial` already. `kept`: their namespaces will have other sandboxes. */
  async withdraw(slots: readonly LiveSlot[], { kept }: { readonly kept: boolean }) {
    const { routerNetnsPath } = this.#deps
    const leased = slots.filter(({ lease }) => lease !== undefined)
    if (leased.length === 0) return
    await this.#changeHost(
      'delete',
      leased.flatMap(({ lease = {} }) => leasedAddresses(lease)),
    )
    for (const slot of leased) {
      const { lease = {} } = slot
      if (lease.ipv6 !== undefined) await removeAddress6(routerNetnsPath, kept ? this.#netnsPathOf(slot) : undefined, lease.ipv6)
      await closeOldPath(this.#deps, lease)
    }
  }

  async #give(before: LiveSlot, lease: LeasedAddresses) {
    const { slots, subnet, hasDefaultPolicy } = this.#deps
    const wanted = leasedAddresses(lease)
    // The sandbox of an earlier try may not be quite gone.
    const earlier = [...slots.values()].filter(({ lease: held }) => held !== undefined && leasedAddresses(held).some((address) => wanted.includes(address)))
    const held = before.lease === undefined || earlier.includes(before) ? earlier : [...earlier, before]
    await this.withdraw(held, { kept: true })
    await openOldPath(this.#deps, lease)
    const after: LiveSlot = { ...before, lease }
    const plan = planSlot(subnet, before.kind, before.index)
    if (lease.ipv6 !== undefined) await addAddress6(this.#deps, this.#netnsPathOf(before), plan, lease.ipv6)
    const cut = held.map((slot) => leaseScript('delete', slot, hasDefaultPolicy)).join('')
    await this.#deps.runNft(cut + leaseScript('add', after, hasDefaultPolicy))
    for (const { lease: _, ...slot } of held) slots.set(slot.link, slot)
    slots.set(before.link, after)
    // Last: what arrives from now on has a way to go.
    await this.#changeHost('add', wanted)
  }

  #netnsPathOf(slot: LiveSlot): string | undefined {
    return slot.kind === 'container' ? this.#deps.netnsPathOf(slot) : undefined
  }

  async #changeHost(verb: 'add' | 'delete', addresses: readonly string[]) {
    const set = (name: string, items: readonly string[]) => {
      if (items.length === 0) return ''
      const words = `element inet ${this.#deps.table} ${name} { ${items.join(', ')} }\n`
      // To add first makes it no error to delete what is not there.
      return verb === 'add' ? `add ${words}` : `add ${words}delete ${words}`
    }
    const isIpv6 = (address: string) => address.includes(':')
    const script =
      set(
        'leased',
        addresses.filter((address) => !isIpv6(address)),
      ) + set('leased6', addresses.filter(isIpv6))
    if (script === '') return
    const { code, stderr } = await runAny('nft', ['-f', '-'], { input: script, background: true })
    // A table that somebody has flushed leads nowhere either; the slot must be free all the same.
    if (code !== 0 && verb === 'add') throw new Error(`the address could not be opened on the host: ${stderr.trim()}`)
  }
}
