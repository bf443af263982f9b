import { type Field, parseLength, tokenList } from './fields.ts'
import { WireError } from './wire-error.ts'

/** How the end of a body is known. `close` is for answers only: it ends where the connection does. */
export type BodyFraming =
  | { readonly kind: 'none' }
  | { readonly kind: 'length'; readonly length: number }
  | { readonly kind: 'chunked' }
  | { readonly kind: 'close' }

/** What the fields say that matter for one connection only (RFC 9110 7.6.1, RFC 9112 6). */
export interface ConnectionFields {
  readonly framing: BodyFraming | undefined
  /** Lower-case names in Connection. */
  readonly connection: readonly string[]
  readonly upgrade: string | undefined
}

const nothing: readonly string[] = []

/**
 * Reads what frames a message. Refuses everything two readers could take differently: repeated Content-Length, a Transfer-Encoding other than exactly `chunked`, both of them, one in HTTP/1.0, and their
 * look-alikes with `_` that gateway interfaces (CGI, WSGI) take for the real ones.
 */
export function readConnectionFields(fields: readonly Field[], minorVersion: 0 | 1): ConnectionFields {
  let length: number | undefined
  let chunked = false
  let connection: string[] | undefined
  let upgrade: string | undefined
  for (const { lower, value } of fields) {
    switch (lower) {
      case 'content-length':
        if (length !== undefined) throw new WireError(400, 'more than one Content-Length')
        length = parseLength(value)
        break
      case 'transfer-encoding':
        if (chunked) throw new WireError(400, 'more than one Transfer-Encoding')
        if (value !== 'chunked') throw new WireError(400, 'a Transfer-Encoding other than chunked')
        if (minorVersion === 0) throw new WireError(400, 'Transfer-Encoding in HTTP/1.0')
        chunked = true
        break
      case 'connection':
        connection = connection === undefined ? tokenList(value) : [...connection, ...tokenList(value)]
        break
      case 'upgrade':
        if (upgrade !== undefined) throw new WireError(400, 'more than one Upgrade')
        upgrade = value
        break
      case 'content_length':
      case 'transfer_encoding':
        throw new WireError(400, 'a header that looks like one that frames the body')
    }
  }
  if (chunked && length !== undefined) throw new WireError(400, 'both Content-Length and Transfer-Encoding')
  const framing: BodyFraming | undefined = chunked ? { kind: 'chunked' } : length === undefined ? undefined : { kind: 'length', length }
  return { framing, connection: connection ?? nothing, upgrade }
}

/** Fields of one connection, never passed on (RFC 9110 7.6.1); framing is written anew. */
export function isHopByHop(lower: string): boolean {
  switch (lower) {
    case 'connection':
    case 'keep-alive':
    case 'proxy-connection':
    case 'transfer-encoding':
    case 'content-length':
    case 'te':
    case 'upgrade':
    case 'http2-settings':
    case 'proxy-authenticate':
    case 'proxy-authorization':
      return true
    default:
      return false
  }
}
