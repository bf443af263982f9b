import { type BodyFraming, readConnectionFields } from './body-framing.ts'
import { isFieldValue } from './characters.ts'
import { type Field, parseFields } from './fields.ts'
import { WireError } from './wire-error.ts'

/** Head of an answer that came out of a sandbox. */
export interface ResponseHead {
  readonly status: number
  readonly reason: string
  readonly fields: readonly Field[]
  readonly body: BodyFraming
  /** Lower-case names in Connection. */
  readonly connection: readonly string[]
  readonly upgrade: string | undefined
  /** The server keeps the connection, and where this answer ends is beyond doubt. */
  readonly reusable: boolean
}

/** RFC 9112 4 and 6.3. `text` as in parseRequestHead; `method` is that of the request. Throws WireError. */
export function parseResponseHead(text: string, method: string): ResponseHead {
  const end = text.indexOf('\r\n')
  const minorVersion = text.startsWith('HTTP/1.1 ') ? 1 : text.startsWith('HTTP/1.0 ') ? 0 : undefined
  if (minorVersion === undefined) throw new WireError(502, 'the answer does not begin with HTTP/1.1 and a status')
  const digits = text.slice(9, 12)
  if (!/^[1-5]\d\d$/.test(digits) || (end !== 12 && text.charCodeAt(12) !== 32)) throw new WireError(502, 'the answer has no status of three digits')
  const reason = end === 12 ? '' : text.slice(13, end)
  if (!isFieldValue(reason)) throw new WireError(502, 'the status line has control characters')
  const status = Number(digits)
  const fields = parseFields(text, end + 2)
  const { framing, connection, upgrade } = readConnectionFields(fields, minorVersion)
  const empty = method === 'HEAD' || status < 200 || status === 204 || status === 304
  const body: BodyFraming = empty ? { kind: 'none' } : (framing ?? { kind: 'close' })
  const reusable = minorVersion === 1 && !empty && body.kind !== 'close' && !connection.includes('close')
  return { status, reason, fields, body, connection, upgrade, reusable }
}
