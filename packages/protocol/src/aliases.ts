import { domainToUnicode } from 'node:url'
import { z } from 'zod'
import { label, queryInteger } from './fields.ts'

/** Wire shapes of the URL aliases API (snake_case). */

/** Names that people take for ours, for the operator's, or for what browsers and mail programs look up by themselves. */
const reservedSubdomains: ReadonlySet<string> = new Set(
  'www api admin app apps mail ftp localhost mags console status static assets ns ns1 ns2 mx smtp imap pop pop3 autodiscover autoconfig wpad isatap'.split(' '),
)

const labelRule = 'must be 1 to 63 of a-z 0-9 - (lower case), and not begin or end with -'
const isLabel = (value: string) => /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(value)
/** What our own URLs are made of: twelve hex digits, or the first twelve characters of a request id. */
const isOurs = (value: string) => /^(?:[0-9a-f]{12}|[0-9a-f]{8}-[0-9a-f]{3})$/.test(value)

/** Why this cannot be an alias; undefined when it can. Letters, digits and hyphens as RFC 1123 has them; `--` in the third place is RFC 5891's for encoded names. */
export function subdomainFault(value: string): string | undefined {
  if (!isLabel(value)) return labelRule
  if (value.slice(2, 4) === '--') return 'must not have -- as its third and fourth character; such names stand for others in Unicode'
  if (isOurs(value)) return 'looks like the URL of a job; choose another'
  if (reservedSubdomains.has(value)) return `${JSON.stringify(value)} is reserved; choose another`
  return undefined
}

/** Why this cannot be the domain of an alias, once it is lower case and without a final dot; undefined when it can. */
export function domainFault(value: string): string | undefined {
  if (/[^\x21-\x7e]/.test(value)) return 'must be written in ASCII; a name in Unicode has a form that begins with xn--'
  if (/[:/@?#]/.test(value)) return 'must be a host name alone, without scheme, port and path, such as www.example.org'
  const labels = value.split('.')
  if (value.length > 253 || labels.some((one) => !isLabel(one))) return 'must be a host name such as www.example.org'
  if (labels.length < 2) return 'must have at least one dot, such as www.example.org'
  // A last label of digits makes a host name an IPv4 address (WHATWG URL, 3.5).
  if (/^(?:\d+|0x[0-9a-f]*)$/.test(labels.at(-1) ?? '')) return 'must be a host name, not an address'
  if (labels.at(-1) === 'localhost') return 'must not end with localhost'
  // What cannot be decoded (RFC 3492) is left as it is.
  if (/(?:^|\.)xn--/.test(domainToUnicode(value))) return 'has a part that begins with xn-- and stands for no name in Unicode'
  return undefined
}

const subdomain = () =>
  z
    .string({ error: (issue) => (issue.input === undefined ? 'is required' : 'must be a string') })
    .superRefine((value, context) => {
      const fault = subdomainFault(value)
      if (fault !== undefined) context.addIssue({ code: 'custom', message: fault })
    })
    .meta({ type: 'string', maxLength: 63 })

const domain = () =>
  z
    .string('must be a string')
    .transform((value) => value.toLowerCase().replace(/\.$/, ''))
    .superRefine((value, context) => {
      const fault = domainFault(value)
      if (fault !== undefined) context.addIssue({ code: 'custom', message: fault })
    })
    .meta({ type: 'string', maxLength: 253 })

export const createUrlAliasRequest = z
  .strictObject({
    subdomain: subdomain().describe('Its name below the apps domain.'),
    workspace_id: label().describe('Where it points: always at the job that has this workspace.'),
    domain: domain().nullish().describe('A host name of your own that means the same; its DNS must lead here.'),
  })
  .meta({ title: 'CreateUrlAliasRequest' })
export type CreateUrlAliasRequest = z.output<typeof createUrlAliasRequest>

export const updateUrlAliasRequest = z.strictObject({
  workspace_id: label().optional(),
  domain: domain().nullish().describe('null takes it away.'),
})
export type UpdateUrlAliasRequest = z.output<typeof updateUrlAliasRequest>

export const urlAliasAnswer = z
  .object({
    subdomain: z.string(),
    workspace_id: z.string(),
    domain: z.string().nullable(),
    url: z.string().nullable().describe('null when this server has no apps domain.'),
    created_at: z.string(),
    updated_at: z.string(),
  })
  .meta({ title: 'UrlAlias' })
export type UrlAliasAnswer = z.output<typeof urlAliasAnswer>

export const urlAliasParams = z.object({ subdomain: z.string().describe('The subdomain of the alias.') })

export const listUrlAliasesQuery = z.strictObject({ page: queryInteger(1, 1_000_000).default(1), page_size: queryInteger(1, 100).default(20) })
export const listUrlAliasesAnswer = z.object({ aliases: z.array(urlAliasAnswer), total: z.number(), page: z.number(), page_size: z.number() })
export type ListUrlAliasesAnswer = z.output<typeof listUrlAliasesAnswer>
