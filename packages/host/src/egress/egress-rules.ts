import { checkEgressPolicy, type EgressPolicy, MagsError, readEgressEntry } from '@mags/protocol'
import { formatRange, type Ipv4Range, rangeSize } from '../network/ipv4-range.ts'
import type { DomainRule, DomainRules } from './domain-rule.ts'

/** A policy, read and checked against what this machine allows at all. */
export interface EgressRules {
  readonly policy: EgressPolicy
  /** Blocks that may be reached; undefined: all but `denied`. */
  readonly allowed: readonly Ipv4Range[] | undefined
  readonly denied: readonly Ipv4Range[]
  readonly domains: DomainRules
  /** Names: all answered, none, or those that `domains` allows. Without a list of allowed domains an allow list answers none, so that names are no way out. */
  readonly names: 'open' | 'refused' | 'filtered'
}

/** What no policy can lift. */
export interface EgressWalls {
  readonly denied: readonly Ipv4Range[]
  /** Exceptions of the operator from `denied`. */
  readonly allowed: readonly Ipv4Range[]
  /** The operator's own, without exceptions. */
  readonly forbidden?: readonly Ipv4Range[]
}

/** Throws MagsError `bad_request` naming entry and rule; `field` is how the words call the policy. */
export function readEgressRules(policy: EgressPolicy, walls: EgressWalls, field = 'egress'): EgressRules {
  checkEgressPolicy(policy, field)
  if (policy === 'none') return { policy, allowed: [], denied: [], domains: { allow: [], deny: [] }, names: 'refused' }
  const allow = policy.allow === undefined ? undefined : readList(policy.allow)
  const deny = readList(policy.deny ?? [])
  for (const [place, range] of allow?.ranges ?? []) checkReachable(range, walls, `${field}.allow.${place}`)
  const domains = { ...(allow === undefined ? {} : { allow: allow.domains }), deny: deny.domains }
  return {
    policy,
    allowed: allow === undefined ? undefined : withoutContained(allow.ranges.map(([, range]) => range)),
    denied: withoutContained(deny.ranges.map(([, range]) => range)),
    domains,
    names: namesOf(domains),
  }
}

function namesOf({ allow, deny }: DomainRules): EgressRules['names'] {
  if (allow === undefined) return deny.length === 0 ? 'open' : 'filtered'
  return allow.length === 0 ? 'refused' : 'filtered'
}

function readList(entries: readonly string[]) {
  const ranges: [number, Ipv4Range][] = []
  const domains: DomainRule[] = []
  for (const [place, entry] of entries.entries()) {
    const read = readEgressEntry(entry)
    if (typeof read === 'string') throw new MagsError('internal', `an egress entry was not checked: ${read}`)
    if (read.kind === 'block') ranges.push([place, { first: read.first, prefixLength: read.prefixLength }])
    else domains.push({ name: read.name, below: read.below })
  }
  return { ranges, domains }
}

function checkReachable(range: Ipv4Range, walls: EgressWalls, field: string) {
  const isException = walls.allowed.some((each) => contains(each, range))
  const wall = (walls.forbidden ?? []).find((each) => contains(each, range)) ?? (isException ? undefined : walls.denied.find((each) => contains(each, range)))
  if (wall === undefined) return
  throw new MagsError('bad_request', `${field}: ${formatRange(range)} lies in ${formatRange(wall)}, which this server refuses; that cannot be lifted by a job`)
}

export function contains(outer: Ipv4Range, inner: Ipv4Range): boolean {
  return outer.first <= inner.first && inner.first + rangeSize(inner) <= outer.first + rangeSize(outer)
}

/** Two blocks are apart or one holds the other; nft refuses the latter in a set written in place. */
function withoutContained(ranges: readonly Ipv4Range[]): Ipv4Range[] {
  return ranges.filter((range, place) => !ranges.some((other, at) => at !== place && contains(other, range) && (!contains(range, other) || at < place)))
}
