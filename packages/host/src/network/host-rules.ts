import type { AddressPrefixes } from './address-prefixes.ts'
import type { DnsUpstream } from './dns-upstreams.ts'
import { formatAddress, formatRange, type Ipv4Range } from './ipv4-range.ts'
import { denied6 } from './lease-rules.ts'
import { elements, upstreamElements } from './router-rules.ts'

export interface HostRules {
  readonly table: string
  /** The host's end of the uplink. */
  readonly link: string
  readonly uplink: Ipv4Range
  readonly denied: readonly Ipv4Range[]
  readonly allowed: readonly Ipv4Range[]
  readonly upstreams: readonly DnsUpstream[]
  readonly prefixes: AddressPrefixes
  /** Addresses that sandboxes have. */
  readonly leased: readonly string[]
}

/** The host's end has the first, the router the second usable address of the /30. */
export function uplinkAddresses(uplink: Ipv4Range) {
  return { host: formatAddress(uplink.first + 1), router: formatAddress(uplink.first + 2) }
}

/**
 * The one table on the host itself, loaded in one transaction: nothing from the uplink reaches an address of the host (public ones included; a name server
 * that runs on the host is the exception), denied blocks are refused a second time, nobody opens connections towards the router but to leased addresses, and what leaves is masqueraded
 * unless it has such an address. Connections to leased addresses are limited here, too: they fill this machine's table.
 */
export function renderHostRules(rules: HostRules): string {
  const router = uplinkAddresses(rules.uplink).router
  return `table inet ${rules.table}
delete table inet ${rules.table}
table inet ${rules.table} {
  set denied { type ipv4_addr; flags interval; auto-merge; ${elements(rules.denied.map(formatRange))}; }
  set allowed { type ipv4_addr; flags interval; auto-merge; ${elements(rules.allowed.map(formatRange))}; }
  set prefixes { type ipv4_addr; flags interval; auto-merge; ${elements(rules.prefixes.ipv4.map(formatRange))}; }
  set refused6 { type ipv6_addr; flags interval; auto-merge; ${elements([...denied6, ...rules.prefixes.ipv6])}; }
  set leased { type ipv4_addr; ${elements(rules.leased.filter((address) => !address.includes(':')))}; }
  set leased6 { type ipv6_addr; ${elements(rules.leased.filter((address) => address.includes(':')))}; }
  set inbound { type ipv4_addr; size 65535; flags dynamic; }
  set inbound6 { type ipv6_addr; size 65535; flags dynamic; }
  set upstreams { type ipv4_addr . inet_service; ${upstreamElements(rules.upstreams)}; }

  chain refuse {
    meta l4proto tcp reject with tcp reset
    reject with icmpx type admin-prohibited
  }
  chain input {
    type filter hook input priority -10; policy accept;
    iifname "${rules.link}" ip saddr ${router} meta l4proto { tcp, udp } ip daddr . th dport @upstreams accept
    iifname "${rules.link}" ct direction reply ct state established,related ip saddr @leased accept
    iifname "${rules.link}" ct direction reply ct state established,related ip6 saddr @leased6 accept
    iifname "${rules.link}" goto refuse
  }
  chain reach {
    ct state invalid drop
    ct state established,related accept
    add @inbound { ip daddr ct count over 4096 } drop
    add @inbound6 { ip6 daddr ct count over 4096 } drop
    accept
  }
  chain leave {
    ct state established,related accept
    ip6 daddr != 2000::/3 goto refuse
    ip6 daddr @refused6 goto refuse
  }
  chain forward {
    type filter hook forward priority -10; policy accept;
    oifname "${rules.link}" ct direction reply ct state established,related accept
    iifname "${rules.link}" oifname "${rules.link}" goto refuse
    oifname "${rules.link}" ip daddr @leased goto reach
    oifname "${rules.link}" ip6 daddr @leased6 goto reach
    oifname "${rules.link}" drop
    iifname "${rules.link}" ip6 saddr @leased6 goto leave
    iifname "${rules.link}" meta nfproto ipv6 drop
    iifname "${rules.link}" ip saddr != ${router} ip saddr != @leased drop
    iifname "${rules.link}" ct state established,related accept
    iifname "${rules.link}" meta l4proto { tcp, udp } ip daddr . th dport @upstreams accept
    iifname "${rules.link}" ip daddr @prefixes goto refuse
    iifname "${rules.link}" ip daddr @allowed accept
    iifname "${rules.link}" ip daddr @denied goto refuse
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname != "${rules.link}" ip saddr ${router} masquerade
  }
}
`.replaceAll(' ; }', ' }')
}
