import type { BodyFraming } from '../wire/body-framing.ts'
import type { Field } from '../wire/fields.ts'
import type { HostName } from '../wire/host-name.ts'

/** One request of a client, whichever version of HTTP it came by; checked, so that it means one thing only. */
export interface ClientRequest {
  readonly method: string
  /** Origin form, or `*`. */
  readonly target: string
  readonly secure: boolean
  readonly hostText: string
  readonly host: HostName
  /** As sent; with HTTP/2 without the pseudo fields. */
  readonly fields: readonly Field[]
  /** Lower-case names in Connection. */
  readonly connection: readonly string[]
  readonly body: BodyFraming
  readonly upgrade: string | undefined
  readonly expectsContinue: boolean
  readonly client: ClientAddress
}

/** Where a connection came from. */
export interface ClientAddress {
  /** Without the prefix of an IPv4 address in IPv6. */
  readonly address: string
  /** Its `X-Forwarded-*` are believed. */
  readonly trusted: boolean
  readonly loopback: boolean
  readonly localPort: number
}

export function fieldOf(fields: readonly Field[], lower: string): string | undefined {
  for (const field of fields) if (field.lower === lower) return field.value
  return undefined
}

/** Whether a person looks at the answer. */
export function wantsPage(request: ClientRequest): boolean {
  return request.upgrade === undefined && (fieldOf(request.fields, 'accept')?.includes('text/html') ?? false)
}

/** A browser that opens an address; it can be shown a page that asks again. */
export function isNavigation(request: ClientRequest): boolean {
  return request.method === 'GET' && wantsPage(request)
}

/** May be sent a second time (RFC 9110 9.2.2) when no answer came. */
export function isRepeatable(request: ClientRequest): boolean {
  if (request.body.kind !== 'none' || request.upgrade !== undefined) return false
  return ['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'].includes(request.method)
}
