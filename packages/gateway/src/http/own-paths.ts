import { errorAnswer } from './answers/error-answer.ts'
import { jsonAnswer, type OwnAnswer } from './answers/own-answer.ts'
import type { HttpDeps } from './http-deps.ts'
import { type ClientRequest, fieldOf } from './request/client-request.ts'
import { parseHost } from './wire/host-name.ts'
import { WireError } from './wire/wire-error.ts'

/** Answers of the apps domain itself and of this machine's own names; undefined for every other host. */
export async function ownPath({ directory, appsDomain }: Pick<HttpDeps, 'directory' | 'appsDomain'>, request: ClientRequest): Promise<OwnAnswer | undefined> {
  if (!request.target.startsWith('/.mags/')) return undefined
  const { name } = request.host
  if (name !== appsDomain && !(request.client.loopback && ['localhost', '127.0.0.1', '[::1]'].includes(name))) return undefined
  const { pathname, searchParams } = new URL(request.target, 'http://gateway')
  const reads = request.method === 'GET' || request.method === 'HEAD'
  if (pathname === '/.mags/health' && reads) return jsonAnswer(200, { status: 'ok' })
  if (pathname === '/.mags/ask' && reads) {
    if (!isFromThisMachine(request)) return errorAnswer(request, 403, 'forbidden', 'only programs of this machine may ask that')
    const known = await isKnown(directory, searchParams.get('domain') ?? '')
    return known ? jsonAnswer(200, { known }) : errorAnswer(request, 404, 'not_found', 'no sandbox has that domain')
  }
  return errorAnswer(request, 404, 'not_found', 'there is nothing at this address of the gateway')
}

/** What a reverse proxy here passes on comes from this machine, too, but not from a program that asks for itself. */
function isFromThisMachine(request: ClientRequest): boolean {
  if (!request.client.loopback) return false
  return !['x-forwarded-for', 'forwarded', 'via', 'x-real-ip'].some((name) => fieldOf(request.fields, name) !== undefined)
}

async function isKnown(directory: HttpDeps['directory'], domain: string): Promise<boolean> {
  try {
    const { name, port } = parseHost(domain)
    return port === undefined && (await directory.findByHost(name)) !== undefined
  } catch (error) {
    if (error instanceof WireError) return false
    throw error
  }
}
