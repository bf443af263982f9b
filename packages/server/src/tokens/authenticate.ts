import { MagsError } from '@mags/protocol'
import type { FastifyRequest } from 'fastify'
import type { Identity, Tokens } from './tokens.ts'

/** Who sent a request (RFC 6750). Rejects with MagsError('unauthorized'). */
export async function authenticate(request: FastifyRequest, tokens: Tokens): Promise<Identity> {
  const header = request.headers.authorization
  if (header === undefined) throw new MagsError('unauthorized', 'a token is needed: send it as "Authorization: Bearer <token>"')
  const [, secret] = /^Bearer +([^ ]+) *$/i.exec(header) ?? []
  const identity = secret === undefined ? undefined : await tokens.verify(secret)
  if (identity === undefined) throw new MagsError('unauthorized', 'this token is not known; it may have been revoked')
  return identity
}
