import { type Ipv4Range, parseRange, rangesOverlap } from './ipv4-range.ts'

/** What a sandbox never reaches unless the operator allows it (IANA special-purpose registry, RFC 6890). */
const always = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10', // carrier NAT; also the metadata address of one cloud
  '127.0.0.0/8',
  '168.63.129.16/32', // the platform endpoint of Azure hosts: a public address that answers only to the machine itself
  '169.254.0.0/16', // link-local, and the metadata address of most clouds
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15', // benchmarks; our own uplinks live here
  '224.0.0.0/4',
  '240.0.0.0/4',
]

/** Documentation blocks (RFC 5737). No site lives there, but laboratories use them as private networks. */
const documentation = ['192.0.2.0/24', '198.51.100.0/24', '203.0.113.0/24']

/** The blocks refused on this machine; a documentation block is among them when the machine itself is attached to it. */
export function deniedRanges(hostNetworks: readonly Ipv4Range[]): Ipv4Range[] {
  const attached = documentation.map(parseRange).filter((range) => hostNetworks.some((network) => rangesOverlap(range, network)))
  return [...always.map(parseRange), ...attached]
}
