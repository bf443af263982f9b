import type { LiveSlot } from './router-rules.ts'

/** Addresses of the operator's that one sandbox has. */
export interface SlotLease {
  readonly ipv4?: string
  readonly ipv6?: string
}

/** Where a sandbox's IPv6 packets go; the same on the bridge of every router. */
export const gatewayAddress6 = 'fe80::1'

/** IPv6 that no sandbox reaches although it is global unicast: Teredo, ORCHID and 6to4, which lead elsewhere than the address says. */
export const denied6: readonly string[] = ['2001::/32', '2001:10::/28', '2001:20::/28', '2002::/16']

/** Maps and sets of the router about leased addresses: `leased_in` and `leased_out` translate one to one, the others are for IPv6 what their namesakes are for IPv4. `leases6` is for the next daemon. */
export const leaseSets = `  map leased_in { type ipv4_addr : ipv4_addr; }
  map leased_out { type ipv4_addr : ipv4_addr; }
  map leases6 { type ipv6_addr : ipv4_addr; }
  map generations6 { type ipv6_addr : mark; }
  set live6 { type ipv6_addr . mark; }
  set stale6 { type ipv6_addr . mark; }
  set sent6 { type ipv6_addr; counter; }
  set unruled6 { type ipv6_addr; }
  set inbound_connections { type mark; size 65535; flags dynamic; }
  set inbound_rates { type mark; size 65535; flags dynamic, timeout; timeout 10s; }
`

/**
 * Chains of the router about leased addresses. What comes from outside is no business of a sandbox's policy, nor are its answers. Policies know IPv4 only, so a sandbox that has one opens no IPv6 connection
 * at all (it is not among `unruled6`); the rest of the order is that of `outbound`. `prefixes6` are the operator's.
 */
export function leaseChains(prefixes6: readonly string[]): string {
  return `  chain limit_inbound {
    update @inbound_rates { meta mark limit rate over 500/second burst 2000 packets } drop
    add @inbound_connections { meta mark ct count over 4096 } drop
    ct mark set meta mark
    accept
  }
  chain inbound {
    ct state invalid drop
    ct state established,related ip daddr . ct mark @live accept
    ct state established,related ip daddr . ct mark != @stale drop
    meta mark set ip daddr map @generations
    ct state established,related ct mark set meta mark accept
    goto limit_inbound
  }
  # An answer under an earlier policy.
  chain answer {
    ct mark set ip saddr map @generations
    ip saddr @sent accept
    accept
  }
  chain inbound6 {
    ct state invalid drop
    ct state established,related ip6 daddr . ct mark @live6 accept
    ct state established,related ip6 daddr . ct mark != @stale6 drop
    ct direction reply goto judge6
    meta mark set 0
    meta mark set ip6 daddr map @generations6
    meta mark 0 drop
    ct state established,related ct mark set meta mark accept
    goto limit_inbound
  }
  chain answer6 {
    ct mark set ip6 saddr map @generations6
    ip6 saddr @sent6 accept
    accept
  }
  chain refuse6 {
    ct direction reply drop
    goto turn_away
  }
  # By the connection's first packet: this chain sees answers, too, when a policy has changed.
  chain judge6 {
    ct original ip6 saddr != @unruled6 goto refuse6
    meta mark set ct original ip6 saddr map @generations6
    ct state established,related ct mark set meta mark
    ct state established,related ip6 saddr @sent6 accept
    ct state established,related accept
    update @connection_rates { meta mark limit rate over 500/second burst 2000 packets } goto refuse6
    add @connections { meta mark ct count over 4096 } goto refuse6
    ct mark set meta mark
    ip6 saddr @sent6 accept
    accept
  }
  chain outbound6 {
    ct state invalid drop
    ct state established,related ip6 saddr . ct mark @live6 ip6 saddr @sent6 accept
    ct direction reply ct state established,related ip6 saddr . ct mark @stale6 goto answer6
    ct state established,related ip6 saddr . ct mark @stale6 goto judge6
    ct state established,related goto refuse6
    meta l4proto { tcp, udp } th dport { 53, 853 } goto refuse6
    ip6 daddr != 2000::/3 goto refuse6
    ip6 daddr { ${[...denied6, ...prefixes6].join(', ')} } goto refuse6
    goto judge6
  }
  chain reach_leased {
    type nat hook prerouting priority dstnat; policy accept;
    iifname "up0" dnat ip to ip daddr map @leased_in
  }
`
}

/** The commands that give a slot its addresses, or take them. */
export function leaseScript(verb: 'add' | 'delete', slot: LiveSlot, hasDefaultPolicy: boolean, sentBytes6 = 0): string {
  const { address, lease } = slot
  if (lease === undefined) return ''
  const isAdd = verb === 'add'
  const element = (table: string, set: string, words: string) => `${verb} element ${table} ${set} { ${words} }\n`
  const inet = (set: string, key: string, value: string) => element('inet mags', set, isAdd ? `${key} : ${value}` : key)
  const counter = isAdd && sentBytes6 > 0 ? ` counter packets 0 bytes ${sentBytes6}` : ''
  return [
    ...(lease.ipv4 === undefined ? [] : [inet('leased_in', lease.ipv4, address), inet('leased_out', address, lease.ipv4)]),
    ...(lease.ipv6 === undefined
      ? []
      : [
          inet('leases6', lease.ipv6, address),
          element('inet mags', 'sent6', `${lease.ipv6}${counter}`),
          element('bridge mags', 'owners6', `"${slot.link}" . ${slot.mac} . ${lease.ipv6}`),
        ]),
    leaseUseScript(verb, slot, hasDefaultPolicy),
  ].join('')
}

/** Of the above what belongs to the present number of the slot and its policy. */
export function leaseUseScript(verb: 'add' | 'delete', slot: LiveSlot, hasDefaultPolicy: boolean): string {
  const { lease, generation, stale, egress } = slot
  if (lease?.ipv6 === undefined) return ''
  const { ipv6 } = lease
  const element = (set: string, words: string) => `${verb} element inet mags ${set} { ${words} }\n`
  return [
    element('generations6', verb === 'add' ? `${ipv6} : ${generation}` : ipv6),
    element('live6', `${ipv6} . ${generation}`),
    ...stale.map((number) => element('stale6', `${ipv6} . ${number}`)),
    ...(egress === undefined && !hasDefaultPolicy ? [element('unruled6', ipv6)] : []),
  ].join('')
}
