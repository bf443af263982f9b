import { isHopByHop } from '../wire/body-framing.ts'
import type { ClientRequest } from './client-request.ts'

/** What private access takes out of a request before the sandbox sees it. */
export interface Withheld {
  readonly authorization: boolean
  /** Replaces the target. */
  readonly target: string | undefined
  readonly cookieNames: readonly string[]
}

/** The head a sandbox gets (latin1): what the client sent without what is for one connection only, with who it came from. */
export function upstreamHead(request: ClientRequest, withheld: Withheld): string {
  let head = `${request.method} ${withheld.target ?? request.target} HTTP/1.1\r\nHost: ${request.hostText}\r\n`
  const forwarded: Forwarded = {}
  let trailers = false
  for (const { name, lower, value } of request.fields) {
    if (lower === 'host' || lower === 'expect' || lower === 'forwarded') continue
    if (lower.startsWith('x-forwarded-') || lower.startsWith('x_forwarded')) {
      if (request.client.trusted && isForwarded(lower)) forwarded[lower] = forwarded[lower] === undefined ? value : `${forwarded[lower]}, ${value}`
      continue
    }
    if (lower === 'te') trailers ||= /(?:^|,)\s*trailers\s*(?:,|;|$)/i.test(value)
    if (isHopByHop(lower) || (request.connection.length > 0 && request.connection.includes(lower))) continue
    if (lower === 'authorization' && withheld.authorization) continue
    if (lower === 'cookie') {
      const kept = withoutCookies(value, withheld.cookieNames)
      if (kept !== '') head += `${name}: ${kept}\r\n`
      continue
    }
    head += `${name}: ${value}\r\n`
  }
  return `${head}${forwardedLines(request, forwarded)}${framingLines(request, trailers)}\r\n`
}

interface Forwarded {
  'x-forwarded-for'?: string
  'x-forwarded-proto'?: string
  'x-forwarded-host'?: string
  'x-forwarded-port'?: string
}

function isForwarded(lower: string): lower is keyof Forwarded {
  return lower === 'x-forwarded-for' || lower === 'x-forwarded-proto' || lower === 'x-forwarded-host' || lower === 'x-forwarded-port'
}

function forwardedLines({ client, secure, hostText, host }: ClientRequest, told: Forwarded): string {
  const chain = told['x-forwarded-for']
  const from = chain === undefined ? client.address : `${chain}, ${client.address}`
  const proto = told['x-forwarded-proto'] ?? (secure ? 'https' : 'http')
  const port = told['x-forwarded-port'] ?? host.port ?? (told['x-forwarded-proto'] === undefined ? client.localPort : proto === 'https' ? 443 : 80)
  return `X-Forwarded-For: ${from}\r\nX-Forwarded-Proto: ${proto}\r\nX-Forwarded-Host: ${told['x-forwarded-host'] ?? hostText}\r\nX-Forwarded-Port: ${port}\r\n`
}

function framingLines({ body, upgrade, expectsContinue }: ClientRequest, trailers: boolean): string {
  const expect = expectsContinue ? 'Expect: 100-continue\r\n' : ''
  if (upgrade !== undefined) return `Connection: Upgrade\r\nUpgrade: ${upgrade}\r\n`
  const te = trailers ? 'Connection: TE\r\nTE: trailers\r\n' : ''
  if (body.kind === 'length') return `${te}${expect}Content-Length: ${body.length}\r\n`
  if (body.kind === 'chunked') return `${te}${expect}Transfer-Encoding: chunked\r\n`
  return te
}

function withoutCookies(value: string, names: readonly string[]): string {
  if (!names.some((name) => value.includes(name))) return value
  const kept = value.split(';').filter((pair) => !names.includes((pair.split('=', 1)[0] ?? '').trim()))
  return kept.join(';').trim()
}
