import { type BodyFraming, readConnectionFields } from './body-framing.ts'
import { isTarget, isToken } from './characters.ts'
import { type Field, parseFields } from './fields.ts'
import { type HostName, parseHost } from './host-name.ts'
import { WireError } from './wire-error.ts'

/** A request head that means one thing only. */
export interface RequestHead {
  readonly method: string
  /** Origin form, or `*` with OPTIONS. */
  readonly target: string
  readonly minorVersion: 0 | 1
  readonly fields: readonly Field[]
  /** As sent. */
  readonly hostText: string
  readonly host: HostName
  readonly body: BodyFraming
  /** Lower-case names in Connection. */
  readonly connection: readonly string[]
  /** The client wants the connection closed after this request. */
  readonly close: boolean
  /** The protocol asked for; only without a body, and never HTTP/2. */
  readonly upgrade: string | undefined
  readonly expectsContinue: boolean
}

/** RFC 9112 3 and 5. `text` (latin1) is the head with the CRLF of its last line, without the empty line. Throws WireError with the status to answer. */
export function parseRequestHead(text: string): RequestHead {
  const end = text.indexOf('\r\n')
  const firstBlank = text.indexOf(' ')
  const secondBlank = text.indexOf(' ', firstBlank + 1)
  if (firstBlank < 1 || secondBlank < 0 || secondBlank > end) throw new WireError(400, 'the request line is not method, target and version')
  const method = text.slice(0, firstBlank)
  if (method.length > 32 || !isToken(method)) throw new WireError(400, 'the method is not a token')
  const version = text.slice(secondBlank + 1, end)
  if (version !== 'HTTP/1.1' && version !== 'HTTP/1.0') {
    if (/^HTTP\/\d\.\d$/.test(version)) throw new WireError(505, 'only HTTP/1.1 and HTTP/1.0 are spoken here')
    throw new WireError(400, 'the request line does not end with a version')
  }
  const minorVersion = version === 'HTTP/1.1' ? 1 : 0
  if (method === 'CONNECT' || method === 'TRACE') throw new WireError(405, `${method} is not served here`)
  const fields = parseFields(text, end + 2)
  const { framing, connection, upgrade } = readConnectionFields(fields, minorVersion)
  const { hostText, expectsContinue } = readRequestFields(fields, minorVersion)
  const body = framing ?? { kind: 'none' }
  const { connectionUpgrade, close } = readConnection(connection, minorVersion)
  return {
    method,
    target: originForm(method, text.slice(firstBlank + 1, secondBlank), hostText),
    minorVersion,
    fields,
    hostText,
    host: parseHost(hostText),
    body,
    connection,
    close,
    upgrade: connectionUpgrade && minorVersion === 1 && isEmpty(body) && offersUpgrade(upgrade) ? upgrade : undefined,
    expectsContinue: expectsContinue && !isEmpty(body),
  }
}

function readConnection(connection: readonly string[], minorVersion: 0 | 1) {
  if (connection.includes('host')) throw new WireError(400, 'Connection names Host')
  return { connectionUpgrade: connection.includes('upgrade'), close: minorVersion === 0 || connection.includes('close') }
}

/** HTTP/2 would carry requests past the rules that are kept here. */
function offersUpgrade(upgrade: string | undefined): boolean {
  return upgrade !== undefined && upgrade !== '' && !/\bh2c?\b/i.test(upgrade)
}

function isEmpty(body: BodyFraming): boolean {
  return body.kind === 'none' || (body.kind === 'length' && body.length === 0)
}

function readRequestFields(fields: readonly Field[], minorVersion: 0 | 1) {
  let hostText: string | undefined
  let expectsContinue = false
  for (const { lower, value } of fields) {
    if (lower === 'host') {
      if (hostText !== undefined) throw new WireError(400, 'more than one Host')
      hostText = value
    } else if (lower === 'expect') {
      if (value.toLowerCase() !== '100-continue') throw new WireError(417, 'an expectation other than 100-continue')
      expectsContinue = minorVersion === 1
    }
  }
  if (hostText === undefined) throw new WireError(400, 'no Host')
  return { hostText, expectsContinue }
}

function originForm(method: string, target: string, hostText: string): string {
  if (!isTarget(target)) throw new WireError(400, 'the target has characters that are not allowed there')
  if (target.startsWith('/')) return target
  if (target === '*' && method === 'OPTIONS') return target
  const [, authority, path] = /^https?:\/\/([^/?]+)(.*)$/i.exec(target) ?? []
  if (authority === undefined || path === undefined) throw new WireError(400, 'the target is neither a path nor an http address')
  if (authority.toLowerCase() !== hostText.toLowerCase()) throw new WireError(400, 'the target names another host than Host')
  return path.startsWith('/') ? path : `/${path}`
}
