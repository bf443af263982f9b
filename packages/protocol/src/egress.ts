import { z } from 'zod'
import { MagsError } from './errors.ts'
import { text } from './fields.ts'

/** What a sandbox may reach, within what this machine allows at all. */
export type EgressPolicy = 'none' | EgressRules

/** `deny` wins over `allow`. With `allow`, what it does not name is refused; without it, what `deny` does not name is allowed. */
export interface EgressRules {
  /** IPv4 addresses, blocks (`203.0.113.0/24`) and domains (`example.org`: itself; `*.example.org`: everything below it). */
  readonly allow?: readonly string[] | undefined
  readonly deny?: readonly string[] | undefined
}

/** One entry of a list, read. Domains are lower case, without the dot at their end. */
export type EgressEntry =
  | { readonly kind: 'block'; readonly first: number; readonly prefixLength: number }
  | { readonly kind: 'domain'; readonly name: string; readonly below: boolean }

export const egressEntryLimit = 200
const longestEntry = 256
const label = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/

/** Reads one entry; what is wrong with it is returned as a rule in words. */
export function readEgressEntry(entry: string): EgressEntry | string {
  const value = entry.trim().toLowerCase()
  if (value === '') return 'must not be empty'
  if (value.length > longestEntry) return `at most ${longestEntry} characters`
  if (value.includes(':')) return value.includes('://') ? 'must be a host name, not a URL' : 'must be IPv4 or a domain without a port; sandboxes have no IPv6'
  if (/^[\d./]+$/.test(value)) return readBlock(value)
  if (value.includes('/')) return 'must be a domain without a path, or a block such as 203.0.113.0/24'
  const below = value.startsWith('*.')
  const name = (below ? value.slice(2) : value).replace(/\.$/, '')
  const labels = name.split('.')
  if (name.includes('*')) return 'a * may only stand first, as in *.example.org'
  if (name.length > 253 || !labels.every((each) => label.test(each))) return 'is not a domain such as example.org or *.example.org (other letters as xn--…)'
  if (labels.length < 2) return 'must be a whole domain such as example.org'
  return { kind: 'domain', name, below }
}

function readBlock(value: string): EgressEntry | string {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:\/(\d{1,2}))?$/.exec(value)
  const parts = match?.slice(1, 5) ?? []
  const prefixLength = Number(match?.[5] ?? 32)
  // A leading zero means octal to some programs.
  const isWell = parts.length === 4 && parts.every((part) => Number(part) <= 255 && String(Number(part)) === part) && prefixLength <= 32
  if (!isWell) return 'is not an IPv4 address or block such as 203.0.113.7 or 203.0.113.0/24'
  const address = parts.reduce((sum, part) => sum * 256 + Number(part), 0)
  const size = 2 ** (32 - prefixLength)
  const first = address - (address % size)
  if (first === address) return { kind: 'block', first, prefixLength }
  const shown = [24, 16, 8, 0].map((shift) => Math.floor(first / 2 ** shift) % 256).join('.')
  return `has bits set behind its prefix; the block is ${shown}/${prefixLength}`
}

/** The first fault of a policy: where, and the rule. */
export function findEgressFault(policy: EgressPolicy): { readonly path: readonly (string | number)[]; readonly rule: string } | undefined {
  if (policy === 'none') return undefined
  for (const list of ['allow', 'deny'] as const) {
    const entries = policy[list] ?? []
    if (entries.length > egressEntryLimit) return { path: [list], rule: `at most ${egressEntryLimit} entries` }
    for (const [place, entry] of entries.entries()) {
      const read = readEgressEntry(entry)
      if (typeof read === 'string') return { path: [list, place], rule: read }
    }
  }
  return undefined
}

/** Throws MagsError `bad_request`, e.g. `egress.allow.3: must not be empty`. */
export function checkEgressPolicy(policy: EgressPolicy, field = 'egress') {
  const fault = findEgressFault(policy)
  if (fault !== undefined) throw new MagsError('bad_request', `${[field, ...fault.path].join('.')}: ${fault.rule}`)
}

const rules = () => z.array(text(300), 'must be a list of addresses, blocks and domains')

/** Wire shape of `egress`. */
export const egressPolicy = () =>
  z
    .union([z.literal('none'), z.strictObject({ allow: rules().optional(), deny: rules().optional() })], 'must be "none" or an object with allow and deny')
    .superRefine((policy, context) => {
      const fault = findEgressFault(policy)
      if (fault !== undefined) context.addIssue({ code: 'custom', message: fault.rule, path: [...fault.path] })
    })
    .describe('What the sandbox may reach, within what the server allows: "none", or lists of addresses, blocks and domains.')
