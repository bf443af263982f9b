import { randomUUID } from 'node:crypto'
import { MagsError } from '@mags/protocol'
import type { Database } from '../state/database.ts'
import type { GroupCommit } from '../state/group-commit.ts'

/** A public key of an account. */
export interface AccountKey {
  readonly id: string
  readonly name: string
  /** Type and key. */
  readonly publicKey: string
  readonly createdAt: string
}

const mostKeys = 100

/** All SQL about the SSH keys of accounts. */
export class SshKeyStore {
  readonly #database: Database
  readonly #commits: GroupCommit

  constructor(database: Database, commits: GroupCommit) {
    this.#database = database
    this.#commits = commits
  }

  /** Oldest first. */
  async list(accountId: string): Promise<AccountKey[]> {
    const rows = await this.#database.selectFrom('ssh_keys').selectAll().where('account_id', '=', accountId).orderBy('created_at').orderBy('id').execute()
    return rows.map((row) => ({ id: row.id, name: row.name, publicKey: row.public_key, createdAt: row.created_at }))
  }

  /** The same key twice is one. Rejects with MagsError('bad_request') over the bound. */
  async add(accountId: string, key: { readonly name: string; readonly publicKey: string }, now: string): Promise<AccountKey> {
    return await this.#commits.write(async (transaction) => {
      const rows = await transaction.selectFrom('ssh_keys').selectAll().where('account_id', '=', accountId).execute()
      const known = rows.find((row) => row.public_key === key.publicKey)
      if (known) return { id: known.id, name: known.name, publicKey: known.public_key, createdAt: known.created_at }
      if (rows.length >= mostKeys) throw new MagsError('bad_request', `at most ${mostKeys} SSH keys; delete one that is not used any more`)
      const id = randomUUID()
      await transaction.insertInto('ssh_keys').values({ id, account_id: accountId, name: key.name, public_key: key.publicKey, created_at: now }).execute()
      return { id, name: key.name, publicKey: key.publicKey, createdAt: now }
    })
  }

  /** Whether there was one. */
  async remove(accountId: string, id: string): Promise<boolean> {
    return await this.#commits.write(async (transaction) => {
      const result = await transaction.deleteFrom('ssh_keys').where('account_id', '=', accountId).where('id', '=', id).executeTakeFirst()
      return result.numDeletedRows > 0n
    })
  }

  /** The accounts that have this key, the one that had it first before others: anybody can add a key that is not theirs. */
  async accountsWith(publicKey: string): Promise<string[]> {
    const keys = this.#database.selectFrom('ssh_keys').select('account_id').where('public_key', '=', publicKey)
    const rows = await keys.orderBy('created_at').orderBy('id').execute()
    return rows.map((row) => row.account_id)
  }
}
