import { z } from 'zod'
import { MagsError } from './errors.ts'

/** Building blocks of the wire schemas. Every rule is a full phrase, so that an error reads `<field>: <rule>`. */

const rule = (words: string) => ({ error: (issue: { input?: unknown }) => (issue.input === undefined ? 'is required' : words) })

/** A string without NUL of at most `maxBytes` bytes as UTF-8. */
export function text(maxBytes: number, unit = `${maxBytes.toLocaleString('en-US')} bytes`) {
  return boundedText(maxBytes, { error: `at most ${unit}` })
}

/** The same without line breaks, other control characters, and those that turn the direction of what comes after them (https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters). */
export const oneLine = (maxBytes: number) => text(maxBytes).refine(isOneLine, 'must be one line without control characters')

/** The same with something to read in it. */
export const title = () =>
  text(255)
    .refine((value) => value.trim() !== '', 'must not be blank')
    .refine(isOneLine, 'must be one line without control characters')

const isOneLine = (value: string) => !/[\p{Cc}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/u.test(value)

/** The same for contents, of which more is not a wrong value but 'too_large'. */
export function content(maxBytes: number, unit: string) {
  return boundedText(maxBytes, { error: `at most ${unit}`, params: overSize })
}

const overSize = { tooLarge: true }

function boundedText(maxBytes: number, fault: { readonly error: string; readonly params?: Record<string, unknown> }) {
  return z
    .string(rule('must be a string'))
    .refine((value) => !value.includes('\0'), 'must not contain a NUL character')
    .refine((value) => value.length * 3 <= maxBytes || Buffer.byteLength(value) <= maxBytes, fault)
    .meta({ type: 'string', maxLength: maxBytes })
}

/** A whole number from `min` to `max`. */
export function integer(min: number, max: number) {
  const words = `must be a whole number from ${min.toLocaleString('en-US')} to ${max.toLocaleString('en-US')}`
  return z.number(rule(words)).int(words).min(min, words).max(max, words)
}

/** The same out of a query string. */
export function queryInteger(min: number, max: number) {
  const words = `must be a whole number from ${min.toLocaleString('en-US')} to ${max.toLocaleString('en-US')}`
  return z.coerce.number(rule(words)).int(words).min(min, words).max(max, words)
}

export const flag = () => z.boolean(rule('must be true or false'))

export const queryFlag = () => z.enum(['true', 'false'], rule('must be true or false')).transform((value) => value === 'true')

export const choice = <const T extends readonly string[]>(values: T) => z.enum(values, rule(`must be one of ${values.join(', ')}`))

/** Names of jobs and workspaces. */
export const label = () => z.string(rule('must be a string')).regex(/^[A-Za-z0-9._-]{1,63}$/, 'must be 1 to 63 of A-Z a-z 0-9 . _ -')

export const environmentLimits = { entries: 1000, bytes: 128 * 1024 } as const

/** Environment variables: at most 1,000, 128 KiB in all. Checked in one pass that stops at the first fault, so that a huge one costs little. */
export function environment() {
  return z
    .record(z.string(), z.unknown(), rule('must be an object of strings'))
    .transform((value, context): Record<string, string> => {
      const fault = environmentFault(value)
      if (fault) context.addIssue({ code: 'custom', message: fault.rule, path: fault.name === undefined ? [] : [fault.name] })
      return value as Record<string, string>
    })
    .meta({ type: 'object', additionalProperties: { type: 'string' } })
}

function environmentFault(value: Record<string, unknown>): { name?: string; rule: string } | undefined {
  let bytes = 0
  const names = Object.keys(value)
  if (names.length > environmentLimits.entries) return { rule: `at most ${environmentLimits.entries.toLocaleString('en-US')} entries` }
  for (const name of names) {
    const content = value[name]
    const short = name.length > 64 ? `${name.slice(0, 64)}…` : name
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) return { name: short, rule: 'a name must be letters, digits and _ and not begin with a digit' }
    if (typeof content !== 'string') return { name: short, rule: 'must be a string' }
    if (content.includes('\0')) return { name: short, rule: 'must not contain a NUL character' }
    bytes += name.length + Buffer.byteLength(content) + 2
  }
  if (bytes > environmentLimits.bytes) return { rule: 'at most 128 KiB in all' }
  return undefined
}

/** The first fault of a request as an error: 'too_large' for contents that are, else 'bad_request'. */
export const requestFault = (error: z.ZodError): MagsError => new MagsError(isTooLarge(error.issues[0]) ? 'too_large' : 'bad_request', describeFault(error))

export const isTooLarge = (issue: z.core.$ZodIssue | undefined): boolean => issue?.code === 'custom' && issue.params === overSize

/** The first fault of a request in words: `<field>: <rule>`. */
export function describeFault(error: z.ZodError): string {
  const issue = error.issues[0]
  if (issue === undefined) return 'the request is not valid'
  const path = issue.path.map(String).join('.')
  if (issue.code === 'unrecognized_keys')
    return `${path === '' ? '' : `${path}: `}unknown member ${issue.keys.map((key) => JSON.stringify(key.slice(0, 64))).join(', ')}`
  if (path === '') return issue.code === 'invalid_type' ? 'the body must be a JSON object' : issue.message
  return `${path}: ${issue.message}`
}
