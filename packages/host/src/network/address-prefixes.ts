import { MagsError } from '@mags/protocol'
import ipaddr from 'ipaddr.js'
import { readHostAddresses } from './host-routes.ts'
import { formatRange, type Ipv4Range, parseRange, rangesOverlap } from './ipv4-range.ts'
import { denied6 } from './lease-rules.ts'

/** What sandboxes can have addresses out of. */
export interface AddressPrefixes {
  readonly ipv4: readonly Ipv4Range[]
  /** Canonical text, RFC 5952, such as `2001:db8:1::/64`. */
  readonly ipv6: readonly string[]
}

const setting = 'MAGS_IP_PREFIXES'

/** What no sandbox can have: "this" network, loopback, link-local, our own uplinks, multicast, reserved. */
const unusable = ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '198.18.0.0/15', '224.0.0.0/4', '240.0.0.0/4']
/** Global unicast and unique local addresses; all else of IPv6 has a meaning of its own (RFC 4291, RFC 4193). */
const usable6 = ['2000::/3', 'fc00::/7']

/** Reads MAGS_IP_PREFIXES: IPv4 and IPv6 prefixes with commas between. Throws MagsError `bad_request` that names the prefix and the rule. Their canonical texts. */
export function readAddressPrefixes(value: string | undefined): string[] {
  const entries = (value ?? '')
    .split(',')
    .map((entry) => entry.trim())
    .filter((entry) => entry !== '')
  const prefixes = entries.map(readPrefix)
  for (const [place, prefix] of prefixes.entries()) {
    const other = prefixes.slice(0, place).find((each) => prefixesOverlap(each, prefix))
    if (other !== undefined) throw new MagsError('bad_request', `${setting}: ${prefix} and ${other} overlap; name each address once`)
  }
  return prefixes
}

/** The prefixes of canonical texts. */
export function parsePrefixes(texts: readonly string[]): AddressPrefixes {
  return { ipv4: texts.filter((text) => !text.includes(':')).map(parseRange), ipv6: texts.filter((text) => text.includes(':')) }
}

/** Throws MagsError `bad_request` when a prefix holds an address that something else has: `taken` are addresses, and blocks of IPv4, with what they are. */
export function checkPrefixesFree(prefixes: AddressPrefixes, taken: readonly { readonly address: string; readonly what: string }[]) {
  for (const prefix of [...prefixes.ipv4.map(formatRange), ...prefixes.ipv6]) {
    const found = taken.find(({ address }) => prefixesOverlap(prefix, address))
    if (found !== undefined) throw new MagsError('bad_request', `${setting}: ${prefix} holds ${found.address}, ${found.what}; leave it out of the prefix`)
  }
}

/** Of canonical texts: throws as `checkPrefixesFree` when this machine, or a router it knows, has an address in one. */
export async function checkAddressPrefixes(texts: readonly string[]) {
  if (texts.length > 0) checkPrefixesFree(parsePrefixes(texts), await readHostAddresses())
}

export function isInPrefixes(prefixes: AddressPrefixes, address: string): boolean {
  return [...prefixes.ipv4.map(formatRange), ...prefixes.ipv6].some((prefix) => prefixesOverlap(prefix, address))
}

/** Of two addresses or prefixes; those of different families never do. */
export function prefixesOverlap(one: string, other: string): boolean {
  if (one.includes(':') !== other.includes(':')) return false
  if (!one.includes(':')) return rangesOverlap(parseRange(one), parseRange(other))
  const [a, b] = [cidr(one), cidr(other)]
  const [wide, narrow] = a[1] <= b[1] ? [a, b] : [b, a]
  return narrow[0].match(wide[0], wide[1])
}

function readPrefix(entry: string): string {
  if (!isPrefix(entry)) throw new MagsError('bad_request', `${setting}: "${entry}" is not a prefix such as 203.0.113.8/29 or 2001:db8:1::/64`)
  const [address, length] = cidr(entry)
  const network = address.kind() === 'ipv6' ? ipaddr.IPv6.networkAddressFromCIDR(withLength(entry)) : ipaddr.IPv4.networkAddressFromCIDR(withLength(entry))
  if (network.toString() !== address.toString()) {
    throw new MagsError('bad_request', `${setting}: ${entry} has bits set behind the prefix; the block it lies in is ${network.toString()}/${length}`)
  }
  const prefix = `${formatIp(address)}/${length}`
  const meant = address.kind() === 'ipv6' ? findFault6(prefix) : unusable.find((each) => prefixesOverlap(each, prefix))
  if (meant !== undefined) throw new MagsError('bad_request', `${setting}: ${prefix} lies in or holds ${meant}, which sandboxes cannot have addresses of`)
  return prefix
}

function findFault6(prefix: string): string | undefined {
  const length = cidr(prefix)[1]
  if (usable6.some((each) => length >= cidr(each)[1] && prefixesOverlap(each, prefix))) return denied6.find((each) => prefixesOverlap(each, prefix))
  return 'what is neither global unicast nor unique local'
}

function isPrefix(entry: string): boolean {
  const [address = ''] = entry.split('/')
  // The library also reads octal and shortened IPv4 addresses, and zones.
  const isAddress = address.includes(':') ? ipaddr.IPv6.isValid(address) && !/[%.]/.test(address) : ipaddr.IPv4.isValidFourPartDecimal(address)
  return isAddress && ipaddr.isValidCIDR(withLength(entry))
}

const withLength = (entry: string) => (entry.includes('/') ? entry : `${entry}/${entry.includes(':') ? 128 : 32}`)

const formatIp = (address: ipaddr.IPv6 | ipaddr.IPv4) => (address instanceof ipaddr.IPv6 ? address.toRFC5952String() : address.toString())

function cidr(text: string): [ipaddr.IPv6 | ipaddr.IPv4, number] {
  return ipaddr.parseCIDR(withLength(text))
}
