import { z } from 'zod'
import { text } from './fields.ts'

/** What a sandbox may reach, within what this machine allows at all. */
export type EgressPolicy = 'none' | EgressRules

/** `deny` wins over `allow`. With `allow`, what it does not name is refused; without it, what `deny` does not name is allowed. */
export interface EgressRules {
  /** IPv4 addresses, blocks (`203.0.113.0/24`) and domains (`example.org`: itself; `*.example.org`: everything below it). */
  readonly allow?: readonly string[] | undefined
  readonly deny?: readonly string[] | undefined
}

const rules = () => z.array(text(300), 'must be a list of addresses, blocks and domains').max(200, 'at most 200 entries')

/** Wire shape of `egress`. */
export const egressPolicy = () =>
  z
    .union([z.literal('none'), z.strictObject({ allow: rules().optional(), deny: rules().optional() })], 'must be "none" or an object with allow and deny')
    .describe('What the sandbox may reach, within what the server allows: "none", or lists of addresses, blocks and domains.')
