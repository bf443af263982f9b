import type { EgressRules } from '../egress/egress-rules.ts'
import { gatewayAddress, type SlotPlan } from './address-plan.ts'
import type { DnsUpstream } from './dns-upstreams.ts'
import { formatRange, type Ipv4Range } from './ipv4-range.ts'
import { leaseChains, leaseScript, leaseSets, leaseUseScript, type SlotLease } from './lease-rules.ts'
import { addEgressScript, defaultEgressName, deleteEgressScript, egressChainScript, forwarderPort, type NameGrant, nameRoute } from './slot-egress-rules.ts'

/**
 * A slot with the number of its present use. Connections carry the number of the use that opened them as their conntrack mark and pass only while that
 * number is live; a new number cuts everything an earlier sandbox on the same address had open, without the conntrack tool.
 */
export interface LiveSlot extends SlotPlan {
  readonly generation: number
  /** Earlier numbers of the same use: its connections of before its policy changed. They are judged again, and get the new number when they may go on. */
  readonly stale: readonly number[]
  /** Its own policy; absent: that of this machine for all. */
  readonly egress?: EgressRules
  readonly lease?: SlotLease
}

/** What a router taken over had on a slot besides. */
export interface SlotState {
  readonly sentBytes: number
  /** By IPv6. */
  readonly sentBytes6?: number
  readonly grants: readonly NameGrant[]
}

export interface RouterRules {
  readonly subnet: Ipv4Range
  readonly resolverUid: number
  readonly forwarderUid: number
  readonly denied: readonly Ipv4Range[]
  readonly allowed: readonly Ipv4Range[]
  /** Refused by the operator, without exceptions. */
  readonly forbidden: readonly Ipv4Range[]
  /** The policy of sandboxes that have none of their own. It is part of these rules, so it costs a start nothing. */
  readonly defaultEgress?: EgressRules
  readonly upstreams: readonly DnsUpstream[]
  /** IPv6 prefixes that sandboxes have addresses out of; those of IPv4 are among `forbidden`. */
  readonly prefixes6: readonly string[]
}

export function elements(items: readonly string[]): string {
  return items.length === 0 ? '' : `elements = { ${items.join(', ')} }`
}

export function upstreamElements(upstreams: readonly DnsUpstream[]): string {
  return elements(upstreams.map((upstream) => `${upstream.address} . ${upstream.port}`))
}

/**
 * All rules of the router namespace as one nft script that replaces what was there in one transaction (nft(8)). Order matters and is the policy:
 * spoofed frames die at their bridge port, then what runs on is matched against connections of this use of the slot, then destinations that this machine refuses
 * all, then the sandbox's policy, then limits.
 * Refused TCP is reset and the rest answered "prohibited", so that programs fail at once instead of hanging.
 */
export function renderRouterRules(rules: RouterRules, slots: readonly LiveSlot[], states: ReadonlyMap<string, SlotState> = new Map()): string {
  const resolver = gatewayAddress(rules.subnet)
  const names = rules.defaultEgress?.names ?? 'open'
  const hasDefault = rules.defaultEgress !== undefined
  return `table inet mags
delete table inet mags
table inet mags {
  set denied { type ipv4_addr; flags interval; auto-merge; ${elements(rules.denied.map(formatRange))}; }
  set forbidden { type ipv4_addr; flags interval; auto-merge; ${elements(rules.forbidden.map(formatRange))}; }
  set allowed { type ipv4_addr; flags interval; auto-merge; ${elements(rules.allowed.map(formatRange))}; }
  set upstreams { type ipv4_addr . inet_service; ${upstreamElements(rules.upstreams)}; }
  map generations { type ipv4_addr : mark; ${elements(slots.map(generationElement))}; }
  set live { type ipv4_addr . mark; ${elements(slots.map(liveElement))}; }
  set stale { type ipv4_addr . mark; ${elements(slots.flatMap(staleElements))}; }
  set sent { type ipv4_addr; counter; ${elements(slots.map((slot) => sentElement(slot, states.get(slot.link)?.sentBytes)))}; }
  map policies { type ipv4_addr : verdict; }
  map name_policies { type ipv4_addr : verdict; }
  map name_routes { type ipv4_addr : verdict; }
  set refused { type mark . ipv4_addr . inet_proto . inet_service; size 65535; flags dynamic, timeout; timeout 60s; }
  set refusal_rates { type mark; size 65535; flags dynamic, timeout; timeout 60s; }
  set connections { type mark; size 65535; flags dynamic; }
  set connection_rates { type mark; size 65535; flags dynamic, timeout; timeout 10s; }
  set dns_connections { type ipv4_addr; size 65535; flags dynamic; }
  set dns_rates { type ipv4_addr; size 65535; flags dynamic, timeout; timeout 10s; }
${leaseSets}
${rules.defaultEgress === undefined ? '' : `  chain ${defaultEgressName} { }\n`}  chain turn_away {
    meta l4proto tcp reject with tcp reset
    reject with icmpx type admin-prohibited
  }
  chain refuse_port {
    meta mark . ip daddr . meta l4proto . th dport @refused goto turn_away
    update @refusal_rates { meta mark limit rate over 64/minute burst 64 packets } goto turn_away
    add @refused { meta mark . ip daddr . meta l4proto . th dport }
    goto turn_away
  }
  # Written down for the sandbox's log. What is on record costs nothing of its share, and one that floods takes no room from others.
  chain refuse {
    ct direction reply drop
    meta mark set ip saddr map @generations
    meta l4proto { tcp, udp } goto refuse_port
    # Where ports would be ICMP has type and code.
    meta mark . ip daddr . meta l4proto . th sport @refused goto turn_away
    update @refusal_rates { meta mark limit rate over 64/minute burst 64 packets } goto turn_away
    add @refused { meta mark . ip daddr . meta l4proto . th sport }
    goto turn_away
  }
  chain reopen {
    ct mark set ct original ip saddr map @generations
    ip saddr @sent accept
    accept
  }
  chain open {
    ct state established,related goto reopen
    meta mark set ip saddr map @generations
    update @connection_rates { meta mark limit rate over 500/second burst 2000 packets } goto refuse
    add @connections { meta mark ct count over 4096 } goto refuse
    ct mark set ip saddr map @generations
    ip saddr @sent accept
    accept
  }
  # By the connection's first packet: this chain sees answers, too, when a policy has changed.
  chain judge {
    ct original ip saddr vmap @policies
    goto ${rules.defaultEgress === undefined ? 'open' : defaultEgressName}
  }
${leaseChains(rules.prefixes6)}  chain outbound {
    ct state invalid drop
    ct state established,related ip saddr . ct mark @live ip saddr @sent accept
    ct direction reply ct state established,related ip saddr . ct mark @stale goto answer
    ct state established,related ip saddr . ct mark @stale goto judge
    ct state established,related goto refuse
    ip daddr . th dport @upstreams goto refuse
    meta l4proto { tcp, udp } th dport { 53, 853 } goto refuse
    ip daddr @forbidden goto refuse
    ip daddr @allowed goto judge
    ip daddr @denied goto refuse
    goto judge
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
    iifname "br0" oifname "up0" ip version 4 goto outbound
    iifname "br0" oifname "up0" meta nfproto ipv6 goto outbound6
    iifname "br0" goto refuse
    iifname "up0" oifname "br0" meta nfproto ipv6 goto inbound6
    iifname "up0" oifname "br0" ct direction original ct status dnat goto inbound
    iifname "up0" oifname "br0" ct direction reply ct state established,related ip daddr . ct mark @live accept
    iifname "up0" oifname "br0" ct direction reply ct state established,related ip daddr . ct mark @stale goto judge
  }

  chain names_refused { goto refuse; }
  chain names_open {
    th dport 53 accept
    goto refuse
  }
  chain names_filtered {
    th dport ${forwarderPort} accept
    goto refuse
  }
  chain resolver {
    icmp type echo-request limit rate 1000/second accept
    meta l4proto != { tcp, udp } return
    th dport != { 53, ${forwarderPort} } return
    meta l4proto udp update @dns_rates { ip saddr limit rate over 200/second burst 400 packets } drop
    meta l4proto tcp ct state new add @dns_connections { ip saddr ct count over 4 } goto refuse
    ip saddr vmap @name_policies
    goto names_${names}
  }
  chain route_names {
    meta l4proto { tcp, udp } redirect to :${forwarderPort}
  }
  chain catch_names {
    type nat hook prerouting priority dstnat; policy accept;
    iifname "br0" ip daddr ${resolver} meta l4proto { tcp, udp } th dport 53 ip saddr vmap @name_routes
    iifname "br0" ip daddr ${resolver} meta l4proto { tcp, udp } th dport 53 ${nameRoute(names)}
  }
  chain input {
    type filter hook input priority filter; policy drop;
    iifname "up0" ct state established,related accept
    # The forwarder asks the resolver.
    iifname "lo" ct state established,related accept
    iifname "lo" ip saddr ${resolver} ip daddr ${resolver} meta l4proto { tcp, udp } th dport 53 accept
    iifname "br0" ct state invalid drop
    iifname "br0" ip daddr ${resolver} jump resolver
    # Answers of this use of the slot to connections that the daemon made into it; no policy of the sandbox's is about those.
    iifname "br0" ct direction reply ct state established,related ip saddr . ct mark @live accept
    iifname "br0" ct direction reply ct state established,related ip saddr . ct mark @stale accept
    iifname "br0" goto refuse
  }

  # QEMU runs in this namespace under a uid of its own: what breaks out of it must not be able to send anything.
  chain output {
    type filter hook output priority filter; policy drop;
    # Connections that the daemon makes into a sandbox belong to its present use, too.
    oifname "br0" meta skuid 0 ct state new ct mark set ip daddr map @generations
    meta skuid 0 accept
    oifname "br0" meta skuid ${rules.resolverUid} meta l4proto { tcp, udp } th sport 53 accept
    oifname "up0" meta skuid ${rules.resolverUid} meta l4proto { tcp, udp } ip daddr . th dport @upstreams accept
    oifname "lo" meta skuid ${rules.forwarderUid} ip daddr ${resolver} meta l4proto { tcp, udp } th dport 53 accept
    ct state established,related accept
    # What the kernel answers by itself has no owner: resets and refusals.
    oifname "br0" tcp flags & rst == rst accept
    oifname "br0" meta l4proto icmp accept
    oifname "br0" icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept
  }

  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "up0" snat ip to ip saddr map @leased_out
    oifname "up0" ip saddr ${formatRange(rules.subnet)} masquerade fully-random
  }
}
${rules.defaultEgress === undefined ? '' : egressChainScript(defaultEgressName, rules.defaultEgress, states.get(defaultEgressName)?.grants)}${slots.map((slot) => openEgressScript(slot, states.get(slot.link)?.grants)).join('')}table bridge mags
delete table bridge mags
table bridge mags {
  set owners { type ifname . ether_addr . ipv4_addr; ${elements(slots.map(ownerElement))}; }
  set owners6 { type ifname . ether_addr . ipv6_addr; }
  chain prerouting {
    type filter hook prerouting priority -300; policy drop;
    ether type ip iifname . ether saddr . ip saddr @owners accept
    ether type ip6 iifname . ether saddr . ip6 saddr @owners6 accept
    ether type arp iifname . ether saddr . arp saddr ip @owners iifname . arp saddr ether . arp saddr ip @owners accept
  }
  chain forward {
    type filter hook forward priority -200; policy drop;
  }
  # What the router sends, to whom it is for and to no other port.
  chain output {
    type filter hook output priority -200; policy drop;
    ether type ip oifname . ether daddr . ip daddr @owners accept
    ether type ip6 oifname . ether daddr . ip6 daddr @owners6 accept
    ether type arp oifname . ether daddr . arp daddr ip @owners accept
  }
}
${slots.map((slot) => leaseScript('add', slot, hasDefault, states.get(slot.link)?.sentBytes6)).join('')}`.replaceAll(' ; }', ' }')
}

/** The transaction that makes a new slot pass. */
export function addSlotScript(slots: readonly LiveSlot[]): string {
  return `${openScript(slots)}add element bridge mags owners { ${slots.map(ownerElement).join(', ')} }\n`
}

/** The transaction that takes a slot out of all rules. */
export function deleteSlotScript(slots: readonly LiveSlot[], hasDefault: boolean): string {
  return `${cutScript(slots, hasDefault)}delete element bridge mags owners { ${slots.map(ownerElement).join(', ')} }\n`
}

/** Cuts what `before` had open and opens the same addresses under the numbers of `after`; what the one before had sent and may reach is forgotten. */
export function renewSlotScript(before: readonly LiveSlot[], after: readonly LiveSlot[], hasDefault: boolean): string {
  return cutScript(before, hasDefault) + openScript(after)
}

/** One slot with another policy and number: its connections are stale from now on. */
export function changeEgressScript(before: LiveSlot, after: LiveSlot, grants: readonly NameGrant[], hasDefault: boolean): string {
  const dropped = staleElements(before).filter((element) => !staleElements(after).includes(element))
  const added = staleElements(after).filter((element) => !staleElements(before).includes(element))
  return `${closeEgressScript(before)}${leaseUseScript('delete', before, hasDefault)}${leaseUseScript('add', after, hasDefault)}${elementScript('delete', 'generations', [before.address])}${elementScript('delete', 'live', [liveElement(before)])}${elementScript(
    'delete',
    'stale',
    dropped,
  )}${elementScript('add', 'generations', [generationElement(after)])}${elementScript('add', 'live', [liveElement(after)])}${elementScript(
    'add',
    'stale',
    added,
  )}${openEgressScript(after, grants)}`
}

function openScript(slots: readonly LiveSlot[]): string {
  return [
    elementScript('add', 'generations', slots.map(generationElement)),
    elementScript('add', 'live', slots.map(liveElement)),
    elementScript(
      'add',
      'sent',
      slots.map((slot) => sentElement(slot)),
    ),
    ...slots.map((slot) => openEgressScript(slot)),
  ].join('')
}

function cutScript(slots: readonly LiveSlot[], hasDefault: boolean): string {
  return [
    ...slots.map((slot) => leaseScript('delete', slot, hasDefault)),
    ...slots.map(closeEgressScript),
    elementScript(
      'delete',
      'generations',
      slots.map(({ address }) => address),
    ),
    elementScript('delete', 'live', slots.map(liveElement)),
    elementScript('delete', 'stale', slots.flatMap(staleElements)),
    elementScript(
      'delete',
      'sent',
      slots.map(({ address }) => address),
    ),
  ].join('')
}

const openEgressScript = (slot: LiveSlot, grants: readonly NameGrant[] = []) =>
  slot.egress === undefined ? '' : addEgressScript(slot.address, slot.generation, slot.egress, grants)
const closeEgressScript = (slot: LiveSlot) => (slot.egress === undefined ? '' : deleteEgressScript(slot.address, slot.generation, slot.egress))

function elementScript(verb: 'add' | 'delete', set: string, items: readonly string[]): string {
  return items.length === 0 ? '' : `${verb} element inet mags ${set} { ${items.join(', ')} }\n`
}

const generationElement = (slot: LiveSlot) => `${slot.address} : ${slot.generation}`
const liveElement = (slot: LiveSlot) => `${slot.address} . ${slot.generation}`
const staleElements = (slot: LiveSlot) => slot.stale.map((generation) => `${slot.address} . ${generation}`)
const sentElement = (slot: LiveSlot, bytes = 0) => (bytes === 0 ? slot.address : `${slot.address} counter packets 0 bytes ${bytes}`)
const ownerElement = (slot: LiveSlot) => `"${slot.link}" . ${slot.mac} . ${slot.address}`
