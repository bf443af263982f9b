import { MagsError } from '@mags/protocol'

/** A block of IPv4 addresses: `first` is its lowest address as an unsigned number. */
export interface Ipv4Range {
  readonly first: number
  readonly prefixLength: number
}

/** Reads `a.b.c.d` (a block of one) or `a.b.c.d/len`; bits behind the prefix are cleared. Throws `bad_request` naming the text. */
export function parseRange(text: string): Ipv4Range {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:\/(\d{1,2}))?$/.exec(text.trim())
  const parts = match?.slice(1, 5).map(Number) ?? []
  const prefixLength = match?.[5] === undefined ? 32 : Number(match[5])
  if (parts.length !== 4 || parts.some((part) => part > 255) || prefixLength > 32) {
    throw new MagsError('bad_request', `"${text}" is not an IPv4 address or block such as 10.1.2.3 or 10.1.0.0/16.`)
  }
  const address = parts.reduce((sum, part) => sum * 256 + part, 0)
  const size = 2 ** (32 - prefixLength)
  return { first: address - (address % size), prefixLength }
}

export function formatRange(range: Ipv4Range): string {
  return range.prefixLength === 32 ? formatAddress(range.first) : `${formatAddress(range.first)}/${range.prefixLength}`
}

export function formatAddress(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.')
}

export function rangeSize(range: Ipv4Range): number {
  return 2 ** (32 - range.prefixLength)
}

export function rangesOverlap(one: Ipv4Range, other: Ipv4Range): boolean {
  return one.first < other.first + rangeSize(other) && other.first < one.first + rangeSize(one)
}
