import { checkEgressPolicy, type EgressPolicy, egressPolicy, MagsError, readEgressEntry } from '@mags/protocol'
import type { Ipv4Range } from '../network/ipv4-range.ts'

/** Reads MAGS_EGRESS_DEFAULT, the policy of jobs that name none: `none`, or JSON with `allow` and `deny`. Empty: no policy. Throws MagsError `bad_request`. */
export function readEgressDefault(value: string | undefined): EgressPolicy | undefined {
  const words = value?.trim() ?? ''
  if (words === '') return undefined
  if (words === 'none') return 'none'
  const parsed = egressPolicy().safeParse(readJson(words))
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  throw new MagsError('bad_request', `${['MAGS_EGRESS_DEFAULT', ...(issue?.path ?? [])].join('.')}: ${issue?.message ?? 'is not a policy'}`)
}

function readJson(words: string): unknown {
  try {
    return JSON.parse(words)
  } catch {
    throw new MagsError('bad_request', 'MAGS_EGRESS_DEFAULT: must be none or JSON such as {"deny":["203.0.113.0/24"]}')
  }
}

/** Reads MAGS_EGRESS_DENY, what no sandbox reaches whatever its policy says: addresses and blocks, with commas between. Throws MagsError `bad_request`. */
export function readEgressDeny(value: string | undefined): Ipv4Range[] {
  const entries = (value ?? '')
    .split(',')
    .map((entry) => entry.trim())
    .filter((entry) => entry !== '')
  checkEgressPolicy({ deny: entries }, 'MAGS_EGRESS_DENY')
  return entries.map((entry, place) => {
    const read = readEgressEntry(entry)
    if (typeof read !== 'string' && read.kind === 'block') return { first: read.first, prefixLength: read.prefixLength }
    throw new MagsError('bad_request', `MAGS_EGRESS_DENY.${place}: must be an address or block; a domain can be refused by MAGS_EGRESS_DEFAULT`)
  })
}
