import { MagsError } from '@mags/protocol'
import type { FastifyRequest } from 'fastify'
import type { Transaction } from 'kysely'
import { firstAnswer, idempotencyKeyOf, keyLifeMs } from '../jobs/idempotency-key.ts'
import type { IdempotencyStore } from '../jobs/idempotency-store.ts'
import type { GroupCommit } from '../state/group-commit.ts'
import type { Tables } from '../state/schema.ts'
import { timestamp } from '../state/timestamp.ts'

export interface AnswerOnceDeps {
  readonly idempotency: IdempotencyStore
  readonly commits: GroupCommit
  readonly clock: () => number
}

/**
 * Runs `work` in one transaction; with an Idempotency-Key it runs once, and whoever repeats the request gets the first answer. `body` is all that the request asks for.
 * Rejects as `work`, and with MagsError 'idempotency_conflict' or 'bad_request' (a key that is none).
 */
export async function answerOnce<T>(
  deps: AnswerOnceDeps,
  request: FastifyRequest,
  body: Readonly<Record<string, unknown>>,
  work: (transaction: Transaction<Tables>) => Promise<T>,
): Promise<T> {
  const { accountId } = request.identity
  const header = request.headers['idempotency-key']
  const key = idempotencyKeyOf({ accountId, body, idempotencyKey: typeof header === 'string' ? header : undefined })
  if (key === undefined) return await deps.commits.write(work)
  const now = deps.clock()
  const notBefore = timestamp(now - keyLifeMs)
  const given = await deps.idempotency.find(accountId, key.key, notBefore)
  if (given) return firstAnswer<T>(key, given)
  try {
    return await deps.commits.write(async (transaction) => {
      const answer = await work(transaction)
      if (await deps.idempotency.claim(transaction, key, JSON.stringify(answer), timestamp(now), notBefore))
        throw new MagsError('idempotency_conflict', 'Idempotency-Key: this key was used by a request that came at the same time')
      return answer
    })
  } catch (error) {
    // The same request may have been here at the same time, and have won.
    const first = error instanceof MagsError ? await deps.idempotency.find(accountId, key.key, notBefore) : undefined
    if (first) return firstAnswer<T>(key, first)
    throw error
  }
}
