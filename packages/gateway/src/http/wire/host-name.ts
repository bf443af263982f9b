import { isIPv6 } from 'node:net'
import { WireError } from './wire-error.ts'

export interface HostName {
  /** Lower case, no port, no final dot; an IPv6 address in brackets. */
  readonly name: string
  readonly port: number | undefined
}

const namePattern = /^[a-z0-9](?:[a-z0-9._-]{0,252}[a-z0-9])?\.?$/i

/** Reads `Host` or `:authority` (RFC 9110 7.2): a name or address with at most a port. Throws WireError for anything else, user names too. */
export function parseHost(text: string): HostName {
  const [, literal, plain, port] = /^(?:\[([0-9a-f:.]{2,45})\]|([^:[\]@/?#]{1,254}))(?::(\d{1,5}))?$/i.exec(text) ?? []
  if (literal === undefined && plain === undefined) throw new WireError(400, 'Host is not a name with at most a port')
  if (literal !== undefined && !isIPv6(literal)) throw new WireError(400, 'Host is not an IPv6 address')
  if (plain !== undefined && (!namePattern.test(plain) || plain.includes('..'))) throw new WireError(400, 'Host is not a name')
  const number = port === undefined ? undefined : Number(port)
  if (number !== undefined && (number === 0 || number > 65535)) throw new WireError(400, 'Host has a port that does not exist')
  const name = literal === undefined ? (plain ?? '').toLowerCase() : `[${literal.toLowerCase()}]`
  return { name: name.endsWith('.') ? name.slice(0, -1) : name, port: number }
}
