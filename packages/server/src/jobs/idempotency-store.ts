import type { Transaction } from 'kysely'
import type { Database } from '../state/database.ts'
import type { Tables } from '../state/schema.ts'

export interface IdempotencyKey {
  readonly accountId: string
  readonly key: string
  readonly bodyHash: string
}

export interface StoredAnswer {
  readonly bodyHash: string
  readonly answer: string
}

/** All SQL about Idempotency-Keys. Times are compared as text, which for RFC 3339 in UTC is their order. */
export class IdempotencyStore {
  readonly #database: Database

  constructor(database: Database) {
    this.#database = database
  }

  async find(accountId: string, key: string, notBefore: string): Promise<StoredAnswer | undefined> {
    return await select(this.#database, accountId, key, notBefore)
  }

  /** Takes the key, with the answer to give from now on. When it is taken already: the answer given then. */
  async claim(transaction: Transaction<Tables>, key: IdempotencyKey, answer: string, now: string, notBefore: string): Promise<StoredAnswer | undefined> {
    await transaction
      .deleteFrom('idempotency_keys')
      .where('account_id', '=', key.accountId)
      .where('key', '=', key.key)
      .where('created_at', '<', notBefore)
      .execute()
    const result = await transaction
      .insertInto('idempotency_keys')
      .values({ account_id: key.accountId, key: key.key, body_hash: key.bodyHash, answer, created_at: now })
      .onConflict((conflict) => conflict.columns(['account_id', 'key']).doNothing())
      .executeTakeFirst()
    if ((result.numInsertedOrUpdatedRows ?? 0n) > 0n) return undefined
    return await select(transaction, key.accountId, key.key, notBefore)
  }

  async purge(before: string): Promise<void> {
    await this.#database.deleteFrom('idempotency_keys').where('created_at', '<', before).execute()
  }
}

async function select(database: Database, accountId: string, key: string, notBefore: string): Promise<StoredAnswer | undefined> {
  const row = await database
    .selectFrom('idempotency_keys')
    .select(['body_hash', 'answer'])
    .where('account_id', '=', accountId)
    .where('key', '=', key)
    .where('created_at', '>=', notBefore)
    .executeTakeFirst()
  return row && { bodyHash: row.body_hash, answer: row.answer }
}
