import type { ClientAddress, ClientRequest } from '../request/client-request.ts'
import type { BodyFraming } from '../wire/body-framing.ts'
import { isFieldValue, isTarget, isToken } from '../wire/characters.ts'
import { type Field, maxFields, parseLength } from '../wire/fields.ts'
import { parseHost } from '../wire/host-name.ts'
import { WireError } from '../wire/wire-error.ts'

const noNames: readonly string[] = []

/**
 * An HTTP/2 request as the same thing as one of HTTP/1.1 (RFC 9113 8). `raw` is names and values in turn, as they came; `ended`: no body follows. Throws WireError.
 */
export function readHttp2Head(raw: readonly string[], ended: boolean, client: ClientAddress, serverName: string | undefined): ClientRequest {
  const pseudo: Record<string, string> = {}
  const fields: Field[] = []
  const cookies: string[] = []
  let length: number | undefined
  let expectsContinue = false
  let hostField: string | undefined
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] ?? ''
    const value = (raw[i + 1] ?? '').trim()
    if (name.startsWith(':')) {
      if (pseudo[name] !== undefined) throw new WireError(400, 'a pseudo field twice')
      pseudo[name] = value
      continue
    }
    if (!isToken(name) || /[A-Z]/.test(name) || !isFieldValue(value)) throw new WireError(400, 'a field has characters that are not allowed there')
    if (fields.length === maxFields) throw new WireError(431, `more than ${maxFields} header fields`)
    switch (name) {
      case 'connection':
      case 'transfer-encoding':
      case 'upgrade':
      case 'keep-alive':
      case 'proxy-connection':
      case 'content_length':
      case 'transfer_encoding':
        throw new WireError(400, `the field ${name} is not one of HTTP/2`)
      case 'cookie':
        cookies.push(value)
        continue
      case 'host':
        if (hostField !== undefined) throw new WireError(400, 'more than one Host')
        hostField = value
        continue
      case 'content-length':
        if (length !== undefined) throw new WireError(400, 'more than one Content-Length')
        length = parseLength(value)
        continue
      case 'expect':
        if (value.toLowerCase() !== '100-continue') throw new WireError(417, 'an expectation other than 100-continue')
        expectsContinue = !ended
        continue
    }
    fields.push({ name, lower: name, value })
  }
  if (cookies.length > 0) fields.push({ name: 'cookie', lower: 'cookie', value: cookies.join('; ') })
  return {
    ...requestLine(pseudo, hostField, serverName),
    secure: true,
    fields,
    connection: noNames,
    body: framing(length, ended),
    upgrade: undefined,
    expectsContinue,
    client,
  }
}

function requestLine(pseudo: Record<string, string>, hostField: string | undefined, serverName: string | undefined) {
  const { ':method': method = '', ':path': target = '', ':authority': authority, ':protocol': protocol } = pseudo
  if (protocol !== undefined || method === 'CONNECT' || method === 'TRACE') throw new WireError(405, `${method} is not served here`)
  if (method.length > 32 || !isToken(method)) throw new WireError(400, 'the method is not a token')
  if (!isTarget(target) || !(target.startsWith('/') || (target === '*' && method === 'OPTIONS'))) throw new WireError(400, 'the path is not one')
  const hostText = authority ?? hostField
  if (hostText === undefined) throw new WireError(400, 'no authority')
  if (hostField !== undefined && hostField.toLowerCase() !== hostText.toLowerCase()) throw new WireError(400, 'Host is not the authority')
  const host = parseHost(hostText)
  if (serverName !== undefined && serverName.toLowerCase() !== host.name) throw new WireError(421, 'the authority is not the name this connection was made for')
  return { method, target, hostText, host }
}

function framing(length: number | undefined, ended: boolean): BodyFraming {
  if (length !== undefined) {
    if (ended && length > 0) throw new WireError(400, 'Content-Length of a body that does not come')
    return { kind: 'length', length }
  }
  return ended ? { kind: 'none' } : { kind: 'chunked' }
}
