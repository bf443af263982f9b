import { MagsError } from '@mags/protocol'
import type { FastifyInstance } from 'fastify'

/** PostgreSQL has no NUL in texts, and nothing of ours has one in its name or id: refuses it in addresses before anybody looks it up. */
export function refuseNul(app: FastifyInstance): void {
  app.addHook('preValidation', async ({ params, query }) => {
    if (memberWithNul(params) !== undefined) throw new MagsError('not_found', 'no such thing: no name or id has a NUL character')
    const member = memberWithNul(query)
    if (member !== undefined) throw new MagsError('bad_request', `${member.replaceAll('\0', '')}: must not contain a NUL character`)
  })
}

function memberWithNul(members: unknown): string | undefined {
  const found = Object.entries(members ?? {}).find(([name, value]) => name.includes('\0') || String(value).includes('\0'))
  return found?.[0]
}
