import { randomBytes } from 'node:crypto'
import ipaddr from 'ipaddr.js'

/** Larger prefixes are drawn from at random: nobody finds an address by trying, and none comes twice. */
const mostInOrderBits = 16
const randomDraws = 16

/**
 * Addresses of a prefix that somebody can have, canonical, at most 65,536: in order for a small one, a few at random for a large one of IPv6. Of IPv4 without the network's own and its broadcast address, as far as there are such
 * (a /31 or /32 has none, RFC 3021); of IPv6 without the one that means any router (RFC 4291, 2.6.1), except in a /127 or /128 (RFC 6164).
 */
export function* usableAddresses(prefix: string): Generator<string> {
  const [network, length] = ipaddr.parseCIDR(prefix)
  const first = network.toByteArray()
  const bits = 8 * first.length - length
  const isIpv4 = first.length === 4
  if (!isIpv4 && bits > mostInOrderBits) {
    for (let draw = 0; draw < randomDraws; draw++) yield format(first, drawHost(bits))
    return
  }
  const count = 2 ** Math.min(bits, mostInOrderBits)
  const [lowest, highest] = bits <= 1 ? [0, count - 1] : [1, isIpv4 && bits <= mostInOrderBits ? count - 2 : count - 1]
  for (let host = lowest; host <= highest; host++) yield format(first, BigInt(host))
}

/** Never 0. */
function drawHost(bits: number): bigint {
  const number = BigInt(`0x${randomBytes(16).toString('hex')}`) & ((1n << BigInt(bits)) - 1n)
  return number === 0n ? 1n : number
}

function format(network: readonly number[], host: bigint): string {
  const bytes = network.map((byte, place) => byte | Number((host >> BigInt(8 * (network.length - 1 - place))) & 255n))
  const address = ipaddr.fromByteArray(bytes)
  return address instanceof ipaddr.IPv6 ? address.toRFC5952String() : address.toString()
}
