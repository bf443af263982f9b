import type { Database } from '../state/database.ts'

/** All SQL about tokens. */
export class TokenStore {
  readonly #database: Database

  constructor(database: Database) {
    this.#database = database
  }

  async insert(token: { id: string; accountId: string; name: string; hash: string; prefix: string; createdAt: string }): Promise<void> {
    await this.#database
      .insertInto('tokens')
      .values({
        id: token.id,
        account_id: token.accountId,
        name: token.name,
        hash: token.hash,
        prefix: token.prefix,
        created_at: token.createdAt,
        last_used_at: null,
      })
      .execute()
  }

  async findByHash(hash: string): Promise<{ id: string; accountId: string } | undefined> {
    const row = await this.#database.selectFrom('tokens').select(['id', 'account_id']).where('hash', '=', hash).executeTakeFirst()
    return row && { id: row.id, accountId: row.account_id }
  }

  /** All that have a token. */
  async accounts(): Promise<string[]> {
    const rows = await this.#database.selectFrom('tokens').select('account_id').distinct().execute()
    return rows.map((row) => row.account_id)
  }

  async touch(id: string, usedAt: string): Promise<void> {
    await this.#database.updateTable('tokens').set({ last_used_at: usedAt }).where('id', '=', id).execute()
  }

  async list(accountId: string) {
    return await this.#database
      .selectFrom('tokens')
      .select(['id', 'name', 'prefix', 'created_at', 'last_used_at'])
      .where('account_id', '=', accountId)
      .orderBy('created_at')
      .execute()
  }

  /** Whether there was one to delete. */
  async delete(id: string): Promise<boolean> {
    const result = await this.#database.deleteFrom('tokens').where('id', '=', id).executeTakeFirst()
    return result.numDeletedRows > 0n
  }

  async count(): Promise<number> {
    const row = await this.#database
      .selectFrom('tokens')
      .select(({ fn }) => fn.countAll<number>().as('count'))
      .executeTakeFirstOrThrow()
    return row.count
  }
}
