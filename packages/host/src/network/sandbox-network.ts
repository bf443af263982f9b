import { join } from 'node:path'
import { type EgressPolicy, type LeasedAddresses, MagsError } from '@mags/protocol'
import type { Logger } from 'pino'
import { readEgressRules } from '../egress/egress-rules.ts'
import { NameForwarder } from '../egress/names/name-forwarder.ts'
import { AddressLeases } from './address-leases.ts'
import { bridgePortLimit, gatewayAddress, gatewayMac, planSlot, type SlotKind } from './address-plan.ts'
import { checkAddressPrefixes, checkPrefixesFree, parsePrefixes } from './address-prefixes.ts'
import { chooseSubnet } from './choose-subnet.ts'
import { deniedRanges } from './denied-ranges.ts'
import { findDnsUpstreams } from './dns-upstreams.ts'
import { chooseUplink, readHostRoutes } from './host-routes.ts'
import { formatRange, type Ipv4Range, parseRange } from './ipv4-range.ts'
import { pinNamespaceOf } from './namespace.ts'
import { NetworkEgress } from './network-egress.ts'
import { networkError, requireRoot } from './network-error.ts'
import { checkResolverVersion } from './resolver.ts'
import { type OpenedRouter, openRouter, type RouterPlan, removeRouter, routerPaths, unpinAll } from './router.ts'
import { addSlotScript, deleteSlotScript, type LiveSlot, renewSlotScript } from './router-rules.ts'
import { type ProgramLauncher, RulesRunner } from './rules-runner.ts'
import { serialize } from './serialize.ts'
import { forwarderPort } from './slot-egress-rules.ts'
import { deleteLinks, makeContainerLinks, makeTapLinks } from './slot-links.ts'
import { SlotUse } from './slot-use.ts'
import { hostNames, sweepNetworks } from './sweep-networks.ts'
import { watchResolver } from './watch-resolver.ts'

export interface NetworkDeps {
  /** Six or more hex digits; the first six name the link on the host (`mags3f2a91`), all of them the table (`mags_3f2a91`). */
  readonly instance: string
  /** Folder for pins, record and log, on a path without spaces. */
  readonly runDir: string
  readonly logger: Logger
  /** Name servers to ask, `1.1.1.1` or `1.1.1.1#5353`; default: those of this machine. */
  readonly dnsServers?: readonly string[]
  /** Blocks that sandboxes may reach although they are private, e.g. `10.20.0.0/16`. The host's own addresses stay out of reach. */
  readonly egressAllow?: readonly string[]
  /** Blocks that no sandbox reaches, whatever its policy says; wins over `egressAllow`. */
  readonly egressDeny?: readonly Ipv4Range[]
  /** The policy of sandboxes that have none of their own. */
  readonly egressDefault?: EgressPolicy | undefined
  /** Prefixes that are routed to this machine for sandboxes to have addresses out of; see `readAddressPrefixes`. */
  readonly addressPrefixes?: readonly string[]
  /** Addresses of the sandboxes, seen only inside the router namespace; default 10.213.0.0/16. */
  readonly subnet?: string
  /** Starts programs for changes of the rules, in place of this process; a busy pool makes many, and each start from a large process stops it for milliseconds. */
  readonly launcher?: ProgramLauncher
  /** The user the resolver runs as, and with the next number the forwarder; nothing else may run under them. Default 59053, which no distribution hands out. */
  readonly resolverUid?: number
}

interface SlotAddress {
  readonly index: number
  readonly address: string
  readonly prefixLength: number
  readonly gateway: string
  readonly gatewayMac: string
  readonly mac: string
  readonly mtu: number
}

/** A network namespace, ready: `lo`, and `eth0` with address and default route. No IPv6 but `::1`. */
export interface ContainerSlot extends SlotAddress {
  readonly kind: 'container'
  readonly netnsPath: string
}

/** A tap in the router namespace that root may open by name; the guest must use exactly this MAC and address, and a leased IPv6 address. */
export interface TapSlot extends SlotAddress {
  readonly kind: 'tap'
  readonly tapName: string
}

export type NetworkSlot = ContainerSlot | TapSlot

/** Changes of generations wait this long for others, so that a busy pool pays for one program instead of many. */
const renewDelayMs = 200

/**
 * The network of all sandboxes of one daemon: a router in a namespace of its own (bridge, rules, masquerade, resolver), joined to the host by one link.
 *
 *     openNetwork ──▶ open ──close({keep: true})───▶ closed; router, resolver and the slots that processes hold live on, for the next openNetwork to take over
 *                      └────close({keep: false})──▶ closed; nothing is left
 *
 * A slot: made (`create…`) ──▶ used by one sandbox after another, with `renew` in between ──▶ `free`. After a take-over the slots of the earlier daemon are *left over*:
 * each is adopted for a sandbox that lives on, and `freeUnadopted` removes the rest. Methods throw MagsError `sandbox_failed`, or `internal` for wrong use.
 */
export class SandboxNetwork {
  /** Address of the name server for resolv.conf; also the gateway. */
  readonly resolver: string
  /** MTU of sandboxes, that of this machine's default route. */
  readonly uplinkMtu: number
  /** Where QEMU has to be started: `nsenter --net=<routerNetnsPath>`. Not as the resolver's user. */
  readonly routerNetnsPath: string
  /** What its sandboxes may reach, sent and were refused. */
  readonly egress: NetworkEgress
  readonly #plan: RouterPlan
  readonly #rules: RulesRunner
  readonly #netnsDir: string
  readonly #slots = new Map<string, LiveSlot>()
  readonly #uses = new Map<string, SlotUse>()
  readonly #forwarder: NameForwarder
  readonly #leases: AddressLeases
  readonly #leftOver = new Set<string>()
  readonly #serial = serialize()
  readonly #stopWatching: () => Promise<void>
  #renewals = new Set<string>()
  #renewing: Promise<void> | undefined
  #lastGeneration = 0
  #state: 'open' | 'closed' = 'open'

  constructor(plan: RouterPlan, opened: OpenedRouter, launcher?: ProgramLauncher) {
    this.#plan = plan
    this.resolver = gatewayAddress(plan.subnet)
    this.uplinkMtu = plan.mtu
    this.routerNetnsPath = routerPaths(plan.runDir).router
    this.#rules = new RulesRunner(this.routerNetnsPath, plan.runDir, launcher)
    this.#netnsDir = routerPaths(plan.runDir).netnsDir
    for (const slot of opened.slots) {
      this.#slots.set(slot.link, slot)
      this.#leftOver.add(slot.link)
      this.#uses.set(slot.link, new SlotUse(slot.link, slot.address, [...slot.stale, slot.generation]))
      this.#lastGeneration = Math.max(this.#lastGeneration, slot.generation)
    }
    this.egress = new NetworkEgress({
      runDir: plan.runDir,
      walls: plan,
      defaultEgress: plan.defaultEgress,
      slots: this.#slots,
      serial: this.#serial,
      runNft: (script) => this.#rules.run(script),
      nextGeneration: () => ++this.#lastGeneration,
      listSet: (name) => this.#rules.listSet(name),
      logger: plan.logger,
    })
    this.#leases = new AddressLeases({
      ...hostNames(plan.instance),
      routerNetnsPath: this.routerNetnsPath,
      subnet: plan.subnet,
      uplink: parseRange(opened.record.uplink),
      prefixes: plan.prefixes,
      hasDefaultPolicy: plan.defaultEgress !== undefined,
      slots: this.#slots,
      serial: this.#serial,
      runNft: (script) => this.#rules.run(script),
      netnsPathOf: (slot) => join(this.#netnsDir, String(slot.index)),
    })
    this.#forwarder = new NameForwarder({
      instance: plan.instance,
      netnsPath: this.routerNetnsPath,
      logFile: routerPaths(plan.runDir).forwarderLog,
      address: this.resolver,
      port: forwarderPort,
      uid: plan.forwarderUid,
      defaultDomains: plan.defaultEgress?.names === 'filtered' ? plan.defaultEgress.domains : undefined,
      grant: (address, name, addresses, seconds) => this.egress.grant(address, name, addresses, seconds),
      onRefused: (address, name) => this.egress.nameRefused(address, name),
      logger: plan.logger,
    })
    // Those of an earlier daemon; nobody waits for it.
    void this.egress.filterNames(this.#forwarder)
    this.#stopWatching = watchResolver(plan, opened.record)
  }

  async createContainerSlot(index: number): Promise<ContainerSlot> {
    const [slot] = await this.createContainerSlots([index])
    if (slot === undefined) throw new MagsError('internal', 'no slot was made')
    return slot
  }

  /** Makes several at once, which costs a third per piece. All or none. */
  async createContainerSlots(indexes: readonly number[]): Promise<ContainerSlot[]> {
    const made = await this.#create('container', indexes)
    return made.map((slot) => this.#describeContainer(slot))
  }

  async createTapSlot(index: number): Promise<TapSlot> {
    const [slot] = await this.createTapSlots([index])
    if (slot === undefined) throw new MagsError('internal', 'no slot was made')
    return slot
  }

  async createTapSlots(indexes: readonly number[]): Promise<TapSlot[]> {
    const made = await this.#create('tap', indexes)
    return made.map((slot) => this.#describeTap(slot))
  }

  /** Takes a slot of an earlier daemon back for a container that lives on; `pid` is any process in its namespace. Undefined when its link is gone. */
  async adoptContainerSlot(index: number, pid: number): Promise<ContainerSlot | undefined> {
    const slot = this.#slots.get(planSlot(this.#plan.subnet, 'container', index).link)
    if (slot === undefined) return undefined
    await networkError(() => pinNamespaceOf(pid, join(this.#netnsDir, String(index))))
    this.#leftOver.delete(slot.link)
    return this.#describeContainer(slot)
  }

  adoptTapSlot(index: number): TapSlot | undefined {
    const slot = this.#slots.get(planSlot(this.#plan.subnet, 'tap', index).link)
    if (slot === undefined) return undefined
    this.#leftOver.delete(slot.link)
    return this.#describeTap(slot)
  }

  /** Removes the slots of an earlier daemon that were not adopted. */
  async freeUnadopted() {
    await this.#remove([...this.#leftOver])
  }

  /** The present sandbox's time on a slot, for `egress`. */
  useOf(slot: NetworkSlot): SlotUse {
    const use = this.#uses.get(planSlot(this.#plan.subnet, slot.kind, slot.index).link)
    if (use === undefined) throw new MagsError('internal', `network slot ${slot.index} does not exist`)
    return use
  }

  /** See `AddressLeases.give`. */
  lease(slot: NetworkSlot, addresses: LeasedAddresses): Promise<void> {
    return this.#leases.give(this.useOf(slot), addresses)
  }

  /** Between two sandboxes on one slot: cuts every connection that the first had open, and takes its policy away. Resolves once that is in force; calls close together are joined. */
  renew(slot: NetworkSlot): Promise<void> {
    const { link } = planSlot(this.#plan.subnet, slot.kind, slot.index)
    if (this.#state === 'closed' || !this.#slots.has(link)) return Promise.resolve()
    this.#uses.get(link)?.end()
    this.#renewals.add(link)
    this.#renewing ??= new Promise<void>((resolve) => setTimeout(resolve, renewDelayMs)).then(() => this.#serial(() => this.#renewCollected()))
    return this.#renewing
  }

  /** Removes a slot for good. Its sandbox must be gone. */
  async free(slot: NetworkSlot) {
    await this.#remove([planSlot(this.#plan.subnet, slot.kind, slot.index).link])
  }

  /**
   * Ends the network. `keep`: sandboxes that live on keep their network and rules, held by the resolver, which keeps running; unused slots go.
   * Otherwise nothing is left, and sandboxes that still run are cut off. Idempotent.
   */
  async close(options: { readonly keep: boolean }) {
    if (this.#state === 'closed') return
    this.#state = 'closed'
    await this.#stopWatching()
    await this.#forwarder.close()
    await this.#serial(() => networkError(() => (options.keep ? unpinAll(this.#plan.runDir) : removeRouter(this.#plan.instance, this.#plan.runDir))))
  }

  async #create(kind: SlotKind, indexes: readonly number[]): Promise<LiveSlot[]> {
    if (this.#state === 'closed') throw new MagsError('internal', 'the network is closed')
    const made = indexes.map((index) => ({ ...planSlot(this.#plan.subnet, kind, index), generation: ++this.#lastGeneration, stale: [] }))
    // Its sandbox was not adopted, or the index would not be asked for.
    await this.#remove(made.map((slot) => slot.link).filter((link) => this.#leftOver.has(link)))
    const taken = made.find((slot, place) => this.#slots.has(slot.link) || made.findIndex((each) => each.link === slot.link) !== place)
    if (taken !== undefined) throw new MagsError('internal', `network slot ${taken.link} exists already`)
    if (this.#slots.size + made.length > bridgePortLimit) {
      throw new MagsError('sandbox_failed', `One machine can network ${bridgePortLimit} sandboxes; ${this.#slots.size} exist.`)
    }
    if (made.length === 0) return made
    for (const slot of made) this.#setSlot(slot)
    try {
      await networkError(() => this.#makeSlots(kind, made))
    } catch (error) {
      for (const slot of made) this.#deleteSlot(slot.link)
      throw error
    }
    return made
  }

  /** Links and rules at once: a change of rules waits for the kernel, not for the processor. Frames pass only when both are there. */
  async #makeSlots(kind: SlotKind, slots: readonly LiveSlot[]) {
    const deps = this.#linkDeps()
    const [links, rules] = await Promise.allSettled([
      kind === 'container' ? makeContainerLinks(deps, slots) : makeTapLinks(deps, slots),
      this.#serial(() => this.#rules.run(addSlotScript(slots))),
    ])
    if (links.status === 'rejected') {
      if (rules.status === 'fulfilled') await this.#serial(() => this.#rules.run(deleteSlotScript(slots, this.#plan.defaultEgress !== undefined)))
      throw links.reason
    }
    if (rules.status === 'rejected') {
      await deleteLinks(deps, slots)
      throw rules.reason
    }
  }

  async #remove(links: readonly string[]) {
    await this.#serial(async () => {
      const slots = links.flatMap((link) => this.#slots.get(link) ?? [])
      if (slots.length === 0 || this.#state === 'closed') return
      await networkError(async () => {
        await this.#leases.withdraw(slots, { kept: false })
        await this.#rules.run(deleteSlotScript(slots, this.#plan.defaultEgress !== undefined))
        await deleteLinks(this.#linkDeps(), slots)
      })
      for (const slot of slots) {
        this.#deleteSlot(slot.link)
        this.#leftOver.delete(slot.link)
      }
      await this.egress.forget(slots)
    })
  }

  async #renewCollected() {
    const links = this.#renewals
    this.#renewals = new Set()
    this.#renewing = undefined
    const before = [...links].flatMap((link) => this.#slots.get(link) ?? [])
    if (before.length === 0 || this.#state === 'closed') return
    const sent = await this.egress.lastSent()
    for (const { link, address } of before) this.#uses.get(link)?.close(sent.get(address))
    const after = before.map(({ egress: _, lease: __, ...slot }) => ({ ...slot, generation: ++this.#lastGeneration, stale: [] }))
    await networkError(async () => {
      await this.#leases.withdraw(before, { kept: true })
      await this.#rules.run(renewSlotScript(before, after, this.#plan.defaultEgress !== undefined))
    })
    for (const slot of after) this.#setSlot(slot)
    await this.egress.forget(before)
  }

  /** A slot with a sandbox, or a chance of one, that is not the one it had. */
  #setSlot(slot: LiveSlot) {
    this.#uses.get(slot.link)?.close()
    this.#slots.set(slot.link, slot)
    this.#uses.set(slot.link, new SlotUse(slot.link, slot.address, [slot.generation]))
  }

  #deleteSlot(link: string) {
    this.#uses.get(link)?.close()
    this.#uses.delete(link)
    this.#slots.delete(link)
  }

  #linkDeps() {
    return { netnsDir: this.#netnsDir, gateway: this.resolver, prefixLength: this.#plan.subnet.prefixLength, mtu: this.uplinkMtu }
  }

  #describe(slot: LiveSlot): SlotAddress {
    return {
      index: slot.index,
      address: slot.address,
      prefixLength: this.#plan.subnet.prefixLength,
      gateway: this.resolver,
      gatewayMac: gatewayMac(this.#plan.subnet),
      mac: slot.mac,
      mtu: this.uplinkMtu,
    }
  }

  #describeContainer(slot: LiveSlot): ContainerSlot {
    return { kind: 'container', ...this.#describe(slot), netnsPath: join(this.#netnsDir, String(slot.index)) }
  }

  #describeTap(slot: LiveSlot): TapSlot {
    return { kind: 'tap', ...this.#describe(slot), tapName: slot.link }
  }
}

/**
 * Opens the network of this instance: takes over what an earlier daemon left running, else makes it. Also removes what dead instances left on the host.
 * Needs root and nft, ip, dnsmasq, nsenter, unshare, setpriv; throws MagsError `not_available` saying what is missing, `bad_request` for wrong options.
 */
export async function openNetwork(deps: NetworkDeps): Promise<SandboxNetwork> {
  if (!/^[0-9a-f]{6,32}$/.test(deps.instance)) throw new MagsError('internal', `"${deps.instance}" is not an instance id of 6 to 32 hex digits`)
  requireRoot()
  return networkError(async () => {
    const [routes, upstreams, swept] = await Promise.all([readHostRoutes(), findDnsUpstreams(deps.dnsServers ?? []), sweepNetworks(), checkResolverVersion()])
    if (swept.length > 0) deps.logger.info({ tables: swept }, 'network tables of dead instances removed')
    const subnet = chooseSubnet(
      deps.subnet,
      upstreams.map((upstream) => parseRange(upstream.address)),
    )
    const prefixes = parsePrefixes(deps.addressPrefixes ?? [])
    checkPrefixesFree(prefixes, [{ address: formatRange(subnet), what: 'which sandboxes have among themselves' }])
    await checkAddressPrefixes(deps.addressPrefixes ?? [])
    const walls = {
      denied: deniedRanges(routes.networks),
      allowed: (deps.egressAllow ?? []).map(parseRange),
      // A sandbox reaches no other one, whatever address that has.
      forbidden: [...(deps.egressDeny ?? []), ...prefixes.ipv4],
    }
    const resolverUid = deps.resolverUid ?? 59_053
    const plan: RouterPlan = {
      instance: deps.instance,
      runDir: deps.runDir,
      logger: deps.logger,
      subnet,
      resolverUid,
      forwarderUid: resolverUid + 1,
      ...walls,
      ...(deps.egressDefault === undefined ? {} : { defaultEgress: readEgressRules(deps.egressDefault, walls, 'MAGS_EGRESS_DEFAULT') }),
      upstreams,
      prefixes,
      prefixes6: prefixes.ipv6,
      mtu: routes.mtu,
      uplink: chooseUplink(deps.instance, routes.blocks),
    }
    const opened = await openRouter(plan)
    // A router taken over keeps the addresses and MTU it was made with; its sandboxes have them.
    return new SandboxNetwork({ ...plan, subnet: parseRange(opened.record.subnet), mtu: opened.record.mtu }, opened, deps.launcher)
  })
}
