import type { Selectable, Transaction } from 'kysely'
import type { Database } from '../state/database.ts'
import type { GroupCommit } from '../state/group-commit.ts'
import type { Tables, UrlAliasesTable } from '../state/schema.ts'
import type { AliasTarget } from './alias-lookup.ts'
import type { UrlAlias } from './url-alias.ts'

/** All SQL about URL aliases. */
export class AliasStore {
  readonly #database: Database
  readonly #commits: GroupCommit

  constructor(database: Database, commits: GroupCommit) {
    this.#database = database
    this.#commits = commits
  }

  /** In a transaction of the caller; false when its subdomain or its domain is taken. */
  async insert(transaction: Transaction<Tables>, alias: UrlAlias): Promise<boolean> {
    const result = await transaction
      .insertInto('url_aliases')
      .values({
        subdomain: alias.subdomain,
        account_id: alias.accountId,
        workspace_id: alias.workspaceId,
        domain: alias.domain,
        created_at: alias.createdAt,
        updated_at: alias.updatedAt,
      })
      .onConflict((conflict) => conflict.doNothing())
      .executeTakeFirst()
    return (result.numInsertedOrUpdatedRows ?? 0n) > 0n
  }

  async find(accountId: string, subdomain: string): Promise<UrlAlias | undefined> {
    const row = await this.#database
      .selectFrom('url_aliases')
      .selectAll()
      .where('subdomain', '=', subdomain)
      .where('account_id', '=', accountId)
      .executeTakeFirst()
    return row && toAlias(row)
  }

  /** Whatever the account. */
  async target(by: { readonly subdomain: string } | { readonly domain: string }, database: Database = this.#database): Promise<AliasTarget | undefined> {
    const query = database.selectFrom('url_aliases').select(['account_id', 'workspace_id'])
    const row = await ('subdomain' in by ? query.where('subdomain', '=', by.subdomain) : query.where('domain', '=', by.domain)).executeTakeFirst()
    return row && { accountId: row.account_id, workspaceId: row.workspace_id }
  }

  /** The subdomain of the alias that has this domain, whatever the account. */
  async ownerOf(domain: string, database: Database): Promise<string | undefined> {
    const row = await database.selectFrom('url_aliases').select('subdomain').where('domain', '=', domain).executeTakeFirst()
    return row?.subdomain
  }

  async count(accountId: string, database: Database = this.#database): Promise<number> {
    const query = database.selectFrom('url_aliases').where('account_id', '=', accountId)
    return (await query.select(({ fn }) => fn.countAll<number>().as('count')).executeTakeFirstOrThrow()).count
  }

  /** Newest first. */
  async list(accountId: string, options: { offset: number; limit: number }): Promise<{ aliases: UrlAlias[]; total: number }> {
    const total = await this.count(accountId)
    const rows = await this.#database
      .selectFrom('url_aliases')
      .selectAll()
      .where('account_id', '=', accountId)
      .orderBy('seq', 'desc')
      .offset(options.offset)
      .limit(options.limit)
      .execute()
    return { aliases: rows.map(toAlias), total }
  }

  /** In a transaction of the caller, who has looked whether the domain is free; false when there is no such alias. */
  async update(
    transaction: Transaction<Tables>,
    alias: Pick<UrlAlias, 'accountId' | 'subdomain'>,
    change: { readonly workspaceId?: string; readonly domain?: string | null; readonly updatedAt: string },
  ): Promise<boolean> {
    const result = await transaction
      .updateTable('url_aliases')
      .set({
        updated_at: change.updatedAt,
        ...(change.workspaceId === undefined ? {} : { workspace_id: change.workspaceId }),
        ...(change.domain === undefined ? {} : { domain: change.domain }),
      })
      .where('subdomain', '=', alias.subdomain)
      .where('account_id', '=', alias.accountId)
      .executeTakeFirst()
    return result.numUpdatedRows > 0n
  }

  /** Whether there was one to delete. */
  remove(accountId: string, subdomain: string): Promise<boolean> {
    return this.#commits.write(async (transaction) => {
      const result = await transaction.deleteFrom('url_aliases').where('subdomain', '=', subdomain).where('account_id', '=', accountId).executeTakeFirst()
      return result.numDeletedRows > 0n
    })
  }
}

function toAlias(row: Selectable<UrlAliasesTable>): UrlAlias {
  return {
    subdomain: row.subdomain,
    accountId: row.account_id,
    workspaceId: row.workspace_id,
    domain: row.domain,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }
}
