import { MagsError } from '@mags/protocol'
import { type Ipv4Range, parseRange, rangesOverlap } from './ipv4-range.ts'

/** The addresses of sandboxes; `wished` is a block. Throws MagsError `bad_request` when it is too small, or holds a name server that sandboxes ask. */
export function chooseSubnet(wished: string | undefined, upstreams: readonly Ipv4Range[]): Ipv4Range {
  const subnet = parseRange(wished ?? '10.213.0.0/16')
  if (subnet.prefixLength > 24) throw new MagsError('bad_request', 'The sandbox subnet must be a /24 or larger.')
  const inside = upstreams.find((upstream) => rangesOverlap(subnet, upstream))
  if (inside === undefined) return subnet
  throw new MagsError('bad_request', 'A name server of this machine lies inside the sandbox subnet; choose another subnet.')
}
