import { type EgressPolicy, MagsError } from '@mags/protocol'
import type { Logger } from 'pino'
import type { DomainRules } from '../egress/domain-rule.ts'
import { isAllowed } from '../egress/domain-rule.ts'
import { type EgressRules, type EgressWalls, readEgressRules } from '../egress/egress-rules.ts'
import { readEgressRecord, removeEgressRecords, writeEgressRecord } from './egress-records.ts'
import { type Ipv4Range, parseRange, rangesOverlap } from './ipv4-range.ts'
import type { ListedElement } from './list-elements.ts'
import { NameGrants } from './name-grants.ts'
import { networkError } from './network-error.ts'
import { changeEgressScript, type LiveSlot } from './router-rules.ts'
import { defaultEgressName, grantScript, grantsNames, type NameGrant, slotEgressName } from './slot-egress-rules.ts'
import type { SlotUse } from './slot-use.ts'

export interface NetworkEgressDeps {
  readonly runDir: string
  readonly walls: EgressWalls
  readonly defaultEgress: EgressRules | undefined
  readonly slots: Map<string, LiveSlot>
  /** Everything that changes rules or `slots` goes through this. */
  readonly serial: <T>(task: () => Promise<T>) => Promise<T>
  readonly runNft: (script: string) => Promise<void>
  readonly nextGeneration: () => number
  /** Reads one set of the rules. */
  readonly listSet: (name: string) => Promise<ListedElement[]>
  readonly logger: Logger
}

/** Hears which names a sandbox may ask for, before its rules lead its questions there. Settles once that counts. */
export interface NameFilter {
  /** Starts it when it does not run; never rejects, and what cannot start refuses. */
  prepare(): Promise<unknown>
  set(address: string, domains: DomainRules | undefined): Promise<void>
}

/** One connection or datagram refused, by the number of the slot's use. */
export interface RefusedRow {
  readonly generation: number
  readonly address: string
  readonly protocol: 'tcp' | 'udp' | 'other'
  readonly port: number
}

/** A connection that stood still for longer than this many changes of policy is cut. */
const keptStale = 16
const defaultKey = 'default'
/** Sandboxes under this machine's own policy share what names have opened: what one may reach the others may, too. */
const mostDefaultGrants = 32_768

/** The policies of the sandboxes in a network: what they may reach, what they sent, what they were refused. Part of `SandboxNetwork`. */
export class NetworkEgress {
  readonly #deps: NetworkEgressDeps
  readonly #grants = new Map<string, NameGrants>()
  #pendingGrants: { readonly address: string; readonly grants: readonly NameGrant[] }[] = []
  #granting: Promise<ReadonlySet<unknown>> | undefined
  #sent: Promise<ReadonlyMap<string, number>> | undefined
  #filter: NameFilter | undefined

  constructor(deps: NetworkEgressDeps) {
    this.#deps = deps
  }

  /** Who answers names for filtered sandboxes from now on. Resolves when it knows those that exist. */
  async filterNames(filter: NameFilter) {
    this.#filter = filter
    const filtered = [...this.#deps.slots.values()].filter(({ egress }) => egress?.names === 'filtered')
    if (filtered.length > 0) await filter.prepare()
    await Promise.all(filtered.map(({ address, egress }) => filter.set(address, egress?.domains)))
  }

  /** Throws MagsError `bad_request` naming what cannot be kept. */
  read(policy: EgressPolicy): EgressRules {
    return readEgressRules(policy, this.#deps.walls)
  }

  /** In force once settled; open connections that it refuses are cut. Rejects with `bad_request`, and with `sandbox_failed` when the use has ended. */
  async set(use: SlotUse, policy: EgressPolicy) {
    const rules = this.read(policy)
    // Before the queue, where others would wait with it.
    if (rules.names === 'filtered') await this.#filter?.prepare()
    await this.#deps.serial(async () => {
      const before = this.#deps.slots.get(use.link)
      if (use.ended || before === undefined) throw new MagsError('sandbox_failed', 'the sandbox ended before its egress policy could be changed')
      const generation = this.#deps.nextGeneration()
      const after: LiveSlot = { ...before, generation, stale: [...before.stale, before.generation].slice(-keptStale), egress: rules }
      if (rules.names === 'filtered') await this.#filter?.set(use.address, rules.domains)
      await writeEgressRecord(this.#deps.runDir, use.link, { generation, policy })
      const grants = grantsNames(rules) ? this.#grantsOf(use.link).under(rules.domains) : []
      // Known before it is in force: what is refused in between belongs to this use.
      use.generations.add(generation)
      try {
        await networkError(() => this.#deps.runNft(changeEgressScript(before, after, grants, this.#deps.defaultEgress !== undefined)))
      } catch (error) {
        await this.#restoreRecord(before)
        if (before.egress?.names === 'filtered') await this.#filter?.set(use.address, before.egress.domains)
        throw error
      }
      this.#deps.slots.set(use.link, after)
      if (rules.names !== 'filtered' && before.egress?.names === 'filtered') await this.#filter?.set(use.address, undefined)
    })
  }

  /** After slots were renewed or removed: nothing of the sandboxes before is remembered. */
  async forget(slots: readonly LiveSlot[]) {
    for (const { link } of slots) this.#grants.delete(link)
    const governed = slots.filter(({ egress }) => egress !== undefined)
    if (governed.length === 0) return
    await removeEgressRecords(
      this.#deps.runDir,
      governed.map(({ link }) => link),
    )
    for (const { egress, address } of governed) if (egress?.names === 'filtered') await this.#filter?.set(address, undefined)
  }

  /**
   * Lets a sandbox reach what a name led to, unless its policy changed meanwhile. Calls close together are joined. Resolves with the addresses it may know: none that
   * this machine refuses all (a name that leads inside, by mistake or to get there); undefined: nothing was done.
   */
  async grant(address: string, name: string, addresses: readonly string[], seconds: number): Promise<readonly string[] | undefined> {
    const { denied, allowed, forbidden = [] } = this.#deps.walls
    const isInside = (ranges: readonly Ipv4Range[], range: Ipv4Range) => ranges.some((each) => rangesOverlap(each, range))
    const reachable = addresses.filter((each) => {
      const range = parseRange(each)
      return !isInside(forbidden, range) && (isInside(allowed, range) || !isInside(denied, range))
    })
    if (reachable.length === 0) return []
    const item = { address, grants: reachable.map((each) => ({ name, address: each, secondsLeft: seconds })) }
    this.#pendingGrants.push(item)
    this.#granting ??= this.#deps.serial(() => this.#grantPending())
    return (await this.#granting).has(item) ? reachable : undefined
  }

  /** Hears of names refused. */
  onNameRefused: (row: RefusedRow) => void = () => undefined

  nameRefused(address: string, name: string) {
    const slot = [...this.#deps.slots.values()].find((each) => each.address === address)
    if (slot !== undefined) this.onNameRefused({ generation: slot.generation, address: name, protocol: 'udp', port: 53 })
  }

  /** Bytes that a sandbox has sent since it has its slot. Read for all at once, for whoever asks meanwhile. */
  async sentBytes(use: SlotUse): Promise<number> {
    if (use.ended || (use.resting && use.isCounted)) return use.sentBytes
    const wasResting = use.resting
    this.#sent ??= this.#readSent()
    const bytes = (await this.#sent).get(use.address)
    // It may have ended while we read: then the number can be the next one's.
    if (!use.ended && bytes !== undefined) use.sentBytes = Math.max(use.sentBytes, bytes)
    use.isCounted = wasResting && use.resting
    return use.sentBytes
  }

  /** What each slot has sent at this moment, by address; nothing when that cannot be read. */
  async lastSent(): Promise<ReadonlyMap<string, number>> {
    await this.#sent?.catch(() => undefined)
    this.#sent ??= this.#readSent()
    return await this.#sent.catch((error: unknown) => {
      this.#deps.logger.warn({ err: error }, 'what sandboxes have sent could not be read')
      return new Map()
    })
  }

  /** What was refused in the last minute. */
  async refused(): Promise<RefusedRow[]> {
    const rows = await this.#deps.listSet('refused')
    return rows.flatMap(({ key: [generation, address, protocol, port] }): RefusedRow[] => {
      if (typeof generation !== 'number' || typeof address !== 'string') return []
      if (protocol !== 'tcp' && protocol !== 'udp') return [{ generation, address, protocol: 'other', port: 0 }]
      return [{ generation, address, protocol, port: typeof port === 'number' ? port : 0 }]
    })
  }

  async #readSent(): Promise<ReadonlyMap<string, number>> {
    try {
      const rows = await networkError(() => this.#deps.listSet('sent'))
      const sent = new Map(rows.map(({ key, bytes }) => [String(key[0]), bytes ?? 0]))
      const addresses = new Map([...this.#deps.slots.values()].flatMap(({ lease, address }) => (lease?.ipv6 === undefined ? [] : [[lease.ipv6, address]])))
      if (addresses.size === 0) return sent
      for (const { key, bytes = 0 } of await networkError(() => this.#deps.listSet('sent6'))) {
        const address = addresses.get(String(key[0]))
        if (address !== undefined) sent.set(address, bytes + (sent.get(address) ?? 0))
      }
      return sent
    } finally {
      this.#sent = undefined
    }
  }

  async #grantPending(): Promise<ReadonlySet<unknown>> {
    const pending = this.#pendingGrants
    this.#pendingGrants = []
    this.#granting = undefined
    const done = new Set<unknown>()
    const lines: string[] = []
    const added: [NameGrants, NameGrant[]][] = []
    const byAddress = new Map([...this.#deps.slots.values()].map((slot) => [slot.address, slot]))
    for (const item of pending) {
      const slot = byAddress.get(item.address)
      const rules = slot?.egress ?? this.#deps.defaultEgress
      if (slot === undefined || rules === undefined || !item.grants.every(({ name }) => isAllowed(rules.domains, name))) continue
      done.add(item)
      if (!grantsNames(rules)) continue
      const held = this.#grantsOf(slot.egress === undefined ? defaultKey : slot.link)
      const fresh = held.add(item.grants)
      if (fresh === undefined) done.delete(item)
      if (fresh === undefined || fresh.length === 0) continue
      added.push([held, fresh])
      lines.push(grantScript(slot.egress === undefined ? defaultEgressName : slotEgressName(slot.generation), fresh))
    }
    if (lines.length === 0) return done
    try {
      await networkError(() => this.#deps.runNft(`${lines.join('\n')}\n`))
      return done
    } catch (error) {
      for (const [held, fresh] of added) held.forget(fresh)
      this.#deps.logger.warn({ err: error }, 'addresses of names could not be let through')
      return new Set()
    }
  }

  #grantsOf(key: string): NameGrants {
    const found = this.#grants.get(key) ?? new NameGrants(key === defaultKey ? mostDefaultGrants : undefined)
    this.#grants.set(key, found)
    return found
  }

  async #restoreRecord(before: LiveSlot) {
    if (before.egress === undefined) return await removeEgressRecords(this.#deps.runDir, [before.link])
    await writeEgressRecord(this.#deps.runDir, before.link, { generation: before.generation, policy: before.egress.policy })
  }
}

/** The policy a slot had under an earlier daemon. `none` when it had one whose words are lost or not allowed any more: never more than it had. */
export async function recoverEgress(runDir: string, slot: LiveSlot, isGoverned: boolean, walls: EgressWalls, logger: Logger): Promise<EgressRules | undefined> {
  const record = await readEgressRecord(runDir, slot.link)
  const isOld = record === undefined || record.generation < slot.generation
  if (isOld && !isGoverned) return undefined
  try {
    if (!isOld) return readEgressRules(record.policy, walls)
  } catch (error) {
    logger.warn({ err: error, slot: slot.link }, 'an egress policy of an earlier daemon cannot be kept; its sandbox reaches nothing until it gets another')
  }
  return readEgressRules('none', walls)
}
