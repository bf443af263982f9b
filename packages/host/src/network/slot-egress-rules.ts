import type { EgressRules } from '../egress/egress-rules.ts'
import { formatRange, type Ipv4Range } from './ipv4-range.ts'

/** Where names of filtered sandboxes go: the forwarder beside the resolver. */
export const forwarderPort = 5353

/** An address that a name led to, reachable for the seconds left. */
export interface NameGrant {
  readonly name: string
  readonly address: string
  readonly secondsLeft: number
}

/** Name of the chain and prefix of the sets of a policy. A new policy has new ones, so that old and new can change places in one transaction. */
export const slotEgressName = (generation: number) => `egress_${generation}`
export const defaultEgressName = 'egress_default'
export const namesSet = (chain: string) => `${chain}_names`

/** Whether addresses that names lead to have to be let through. */
export function grantsNames(rules: EgressRules): boolean {
  return rules.allowed !== undefined && rules.names === 'filtered'
}

/** The set and chain of one policy, as commands. What is let through goes on to `open`. */
export function egressChainScript(chain: string, rules: EgressRules, grants: readonly NameGrant[] = []): string {
  const lines = [`add chain inet mags ${chain}`]
  const rule = (words: string) => lines.push(`add rule inet mags ${chain} ${words}`)
  const inside = (ranges: readonly Ipv4Range[]) => `ct original ip daddr { ${ranges.map(formatRange).join(', ')} }`
  if (rules.denied.length > 0) rule(`${inside(rules.denied)} goto refuse`)
  if (rules.allowed !== undefined && rules.allowed.length > 0) rule(`${inside(rules.allowed)} goto open`)
  if (grantsNames(rules)) {
    lines.push(`add set inet mags ${namesSet(chain)} { type ipv4_addr; size 65535; flags timeout; }`)
    lines.push(grantScript(chain, grants))
    rule(`ct original ip daddr @${namesSet(chain)} goto open`)
  }
  rule(rules.allowed === undefined ? 'goto open' : 'goto refuse')
  return `${lines.filter((line) => line !== '').join('\n')}\n`
}

/** An element that is there keeps its time on kernels before 6.12, so it is made anew. */
export function grantScript(chain: string, grants: readonly NameGrant[]): string {
  if (grants.length === 0) return ''
  const seconds = new Map<string, number>()
  for (const { address, secondsLeft } of grants) seconds.set(address, Math.max(secondsLeft, seconds.get(address) ?? 1))
  const plain = [...seconds.keys()].join(', ')
  const timed = [...seconds].map(([address, left]) => `${address} timeout ${Math.ceil(left)}s`).join(', ')
  const command = (verb: string, items: string) => `${verb} element inet mags ${namesSet(chain)} { ${items} }`
  return [command('add', plain), command('delete', plain), command('add', timed)].join('\n')
}

/** Puts a policy in force for one address. */
export function addEgressScript(address: string, generation: number, rules: EgressRules, grants: readonly NameGrant[] = []): string {
  const chain = slotEgressName(generation)
  return `${egressChainScript(chain, rules, grants)}add element inet mags policies { ${address} : goto ${chain} }
add element inet mags name_policies { ${address} : goto names_${rules.names} }
add element inet mags name_routes { ${address} : ${nameRoute(rules.names)} }\n`
}

export function deleteEgressScript(address: string, generation: number, rules: EgressRules): string {
  const chain = slotEgressName(generation)
  const maps = ['policies', 'name_policies', 'name_routes'].map((map) => `delete element inet mags ${map} { ${address} }\n`)
  const set = grantsNames(rules) ? `delete set inet mags ${namesSet(chain)}\n` : ''
  return `${maps.join('')}flush chain inet mags ${chain}\ndelete chain inet mags ${chain}\n${set}`
}

export const nameRoute = (names: EgressRules['names']) => (names === 'filtered' ? 'goto route_names' : 'accept')
