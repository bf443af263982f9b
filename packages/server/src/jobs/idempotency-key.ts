import { createHash } from 'node:crypto'
import { MagsError } from '@mags/protocol'
import type { IdempotencyKey, StoredAnswer } from './idempotency-store.ts'

/** How long the first answer is given back. */
export const keyLifeMs = 24 * 3600 * 1000

/** The key of a request, bound to its account and body. Undefined without the header. Throws MagsError('bad_request'). */
export function idempotencyKeyOf(request: {
  readonly accountId: string
  readonly body: Readonly<Record<string, unknown>>
  readonly idempotencyKey: string | undefined
}): IdempotencyKey | undefined {
  const { accountId, body, idempotencyKey } = request
  if (idempotencyKey === undefined) return undefined
  if (!/^[\x21-\x7e]{1,255}$/.test(idempotencyKey)) throw new MagsError('bad_request', 'Idempotency-Key: must be 1 to 255 visible ASCII characters')
  return { accountId, key: idempotencyKey, bodyHash: createHash('sha256').update(canonicalJson(body)).digest('hex') }
}

/** The answer that was given to the first request with this key. Throws MagsError('idempotency_conflict') when that had another body. */
export function firstAnswer<T>(key: IdempotencyKey, stored: StoredAnswer): T {
  if (stored.bodyHash !== key.bodyHash)
    throw new MagsError('idempotency_conflict', 'Idempotency-Key: this key was used with a different body; use a new key for a new request')
  return JSON.parse(stored.answer) as T
}

/** JSON that does not depend on the order of members. */
function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_name, member: unknown) => {
    if (typeof member !== 'object' || member === null || Array.isArray(member)) return member
    return Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
  })
}
