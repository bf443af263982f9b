import { gatewayAddress, type SlotPlan } from './address-plan.ts'
import type { DnsUpstream } from './dns-upstreams.ts'
import { formatRange, type Ipv4Range } from './ipv4-range.ts'

/**
 * A slot with the number of its present use. Connections carry the number of the use that opened them as their conntrack mark and pass only while that
 * number is live; a new number cuts everything an earlier sandbox on the same address had open, without the conntrack tool.
 */
export interface LiveSlot extends SlotPlan {
  readonly generation: number
}

export interface RouterRules {
  readonly subnet: Ipv4Range
  readonly resolverUid: number
  readonly denied: readonly Ipv4Range[]
  readonly allowed: readonly Ipv4Range[]
  readonly upstreams: readonly DnsUpstream[]
}

export function elements(items: readonly string[]): string {
  return items.length === 0 ? '' : `elements = { ${items.join(', ')} }`
}

export function upstreamElements(upstreams: readonly DnsUpstream[]): string {
  return elements(upstreams.map((upstream) => `${upstream.address} . ${upstream.port}`))
}

/**
 * All rules of the router namespace as one nft script that replaces what was there in one transaction (nft(8)). Order matters and is the policy:
 * spoofed frames die at their bridge port, then what runs on is matched against connections of this use of the slot, then refused destinations, then limits.
 * Refused TCP is reset and the rest answered "prohibited", so that programs fail at once instead of hanging.
 */
export function renderRouterRules(rules: RouterRules, slots: readonly LiveSlot[]): string {
  const resolver = gatewayAddress(rules.subnet)
  return `table inet mags
delete table inet mags
table inet mags {
  set denied { type ipv4_addr; flags interval; auto-merge; ${elements(rules.denied.map(formatRange))}; }
  set allowed { type ipv4_addr; flags interval; auto-merge; ${elements(rules.allowed.map(formatRange))}; }
  set upstreams { type ipv4_addr . inet_service; ${upstreamElements(rules.upstreams)}; }
  map generations { type ipv4_addr : mark; ${elements(slots.map(generationElement))}; }
  set live { type ipv4_addr . mark; ${elements(slots.map(liveElement))}; }
  set connections { type mark; size 65535; flags dynamic; }
  set connection_rates { type mark; size 65535; flags dynamic, timeout; timeout 10s; }
  set dns_connections { type ipv4_addr; size 65535; flags dynamic; }
  set dns_rates { type ipv4_addr; size 65535; flags dynamic, timeout; timeout 10s; }

  chain refuse {
    meta l4proto tcp reject with tcp reset
    reject with icmpx type admin-prohibited
  }
  chain open {
    meta mark set ip saddr map @generations
    update @connection_rates { meta mark limit rate over 500/second burst 2000 packets } goto refuse
    add @connections { meta mark ct count over 4096 } goto refuse
    ct mark set ip saddr map @generations accept
  }
  chain outbound {
    ct state invalid drop
    ct state established,related ip saddr . ct mark @live accept
    ct state established,related goto refuse
    ip daddr . th dport @upstreams goto refuse
    meta l4proto { tcp, udp } th dport { 53, 853 } goto refuse
    ip daddr @allowed goto open
    ip daddr @denied goto refuse
    goto open
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
    iifname "br0" oifname "up0" ip version 4 goto outbound
    iifname "br0" goto refuse
    iifname "up0" oifname "br0" ct direction reply ct state established,related ip daddr . ct mark @live accept
  }

  chain resolver {
    icmp type echo-request limit rate 1000/second accept
    udp dport 53 update @dns_rates { ip saddr limit rate over 200/second burst 400 packets } drop
    udp dport 53 accept
    tcp dport 53 ct state new add @dns_connections { ip saddr ct count over 4 } goto refuse
    tcp dport 53 accept
  }
  chain input {
    type filter hook input priority filter; policy drop;
    iifname "up0" ct state established,related accept
    iifname "br0" ct state invalid drop
    iifname "br0" ip daddr ${resolver} jump resolver
    iifname "br0" ct state established,related accept
    iifname "br0" goto refuse
  }

  # QEMU runs in this namespace under a uid of its own: what breaks out of it must not be able to send anything.
  chain output {
    type filter hook output priority filter; policy drop;
    meta skuid 0 accept
    oifname "br0" meta skuid ${rules.resolverUid} meta l4proto { tcp, udp } th sport 53 accept
    oifname "up0" meta skuid ${rules.resolverUid} meta l4proto { tcp, udp } ip daddr . th dport @upstreams accept
    ct state established,related accept
    # What the kernel answers by itself has no owner: resets and refusals.
    oifname "br0" tcp flags & rst == rst accept
    oifname "br0" meta l4proto icmp accept
  }

  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "up0" ip saddr ${formatRange(rules.subnet)} masquerade fully-random
  }
}
table bridge mags
delete table bridge mags
table bridge mags {
  set owners { type ifname . ether_addr . ipv4_addr; ${elements(slots.map(ownerElement))}; }
  chain prerouting {
    type filter hook prerouting priority -300; policy drop;
    ether type ip iifname . ether saddr . ip saddr @owners accept
    ether type arp iifname . ether saddr . arp saddr ip @owners iifname . arp saddr ether . arp saddr ip @owners accept
  }
  chain forward {
    type filter hook forward priority -200; policy drop;
  }
}
`.replaceAll(' ; }', ' }')
}

/** The transaction that makes a new slot pass. */
export function addSlotScript(slots: readonly LiveSlot[]): string {
  return `${openScript(slots)}add element bridge mags owners { ${slots.map(ownerElement).join(', ')} }\n`
}

/** The transaction that takes a slot out of all rules. */
export function deleteSlotScript(slots: readonly LiveSlot[]): string {
  return `${cutScript(slots)}delete element bridge mags owners { ${slots.map(ownerElement).join(', ')} }\n`
}

/** Cuts what `before` had open and opens the same addresses under the numbers of `after`. */
export function renewSlotScript(before: readonly LiveSlot[], after: readonly LiveSlot[]): string {
  return cutScript(before) + openScript(after)
}

function openScript(slots: readonly LiveSlot[]): string {
  return `add element inet mags generations { ${slots.map(generationElement).join(', ')} }
add element inet mags live { ${slots.map(liveElement).join(', ')} }\n`
}

function cutScript(slots: readonly LiveSlot[]): string {
  return `delete element inet mags generations { ${slots.map((slot) => slot.address).join(', ')} }
delete element inet mags live { ${slots.map(liveElement).join(', ')} }\n`
}

const generationElement = (slot: LiveSlot) => `${slot.address} : ${slot.generation}`
const liveElement = (slot: LiveSlot) => `${slot.address} . ${slot.generation}`
const ownerElement = (slot: LiveSlot) => `"${slot.link}" . ${slot.mac} . ${slot.address}`
