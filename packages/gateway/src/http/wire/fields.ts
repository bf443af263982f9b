import { isFieldValue, isToken } from './characters.ts'
import { WireError } from './wire-error.ts'

/** A header or trailer field: its name as sent and in lower case, its value (latin1) without blanks around it. */
export interface Field {
  readonly name: string
  readonly lower: string
  readonly value: string
}

export const maxFields = 100

/**
 * The field lines of `text` from `at` on, each ended by CRLF (RFC 9112 5). No line folding, no blank before the colon, no bare CR or LF, no control characters. Throws WireError.
 */
export function parseFields(text: string, at: number): Field[] {
  const fields: Field[] = []
  let from = at
  while (from < text.length) {
    const end = text.indexOf('\r\n', from)
    if (end < 0) throw new WireError(400, 'a header line does not end with CRLF')
    if (fields.length === maxFields) throw new WireError(431, `more than ${maxFields} header fields`)
    fields.push(parseField(text, from, end))
    from = end + 2
  }
  return fields
}

function parseField(text: string, from: number, end: number): Field {
  const colon = text.indexOf(':', from)
  if (colon < 0 || colon > end) throw new WireError(400, 'a header line has no colon')
  const name = text.slice(from, colon)
  if (!isToken(name)) throw new WireError(400, 'a header name has characters that are not allowed there')
  let first = colon + 1
  let last = end
  while (first < last && isBlank(text.charCodeAt(first))) first++
  while (last > first && isBlank(text.charCodeAt(last - 1))) last--
  const value = text.slice(first, last)
  if (!isFieldValue(value)) throw new WireError(400, 'a header value has control characters')
  return { name, lower: name.toLowerCase(), value }
}

function isBlank(code: number): boolean {
  return code === 32 || code === 9
}

/** Items of a comma-separated list of tokens, in lower case. Throws WireError when one is not a token. */
export function tokenList(value: string): string[] {
  const items: string[] = []
  for (const part of value.split(',')) {
    const item = part.trim().toLowerCase()
    if (item === '') continue
    if (!isToken(item)) throw new WireError(400, 'a list in a header has an item that is not a token')
    items.push(item)
  }
  return items
}

/** RFC 9112 6.3: digits and nothing else. */
export function parseLength(value: string): number {
  if (!/^\d{1,15}$/.test(value)) throw new WireError(400, 'Content-Length is not a number')
  return Number(value)
}
