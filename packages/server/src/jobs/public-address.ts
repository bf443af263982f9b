import ipaddr from 'ipaddr.js'

const globalUnicast = ipaddr.parseCIDR('2000::/3')

/**
 * Whether an address is one of the public internet. Private, link-local, loopback, carrier-grade NAT, multicast and reserved ranges are not, and neither are
 * the IPv6 forms that carry an IPv4 address (mapped, NAT64, 6to4, Teredo): whoever needs them has the IPv4 address itself.
 */
export function isPublicAddress(address: string): boolean {
  const bare = address.replace(/%.*$/, '')
  if (!ipaddr.isValid(bare)) return false
  const parsed = ipaddr.parse(bare)
  if (parsed.range() !== 'unicast') return false
  return parsed.kind() === 'ipv4' || parsed.match(globalUnicast)
}
