import { sql } from 'kysely'
import type { Database } from '../../state/database.ts'
import type { GroupCommit } from '../../state/group-commit.ts'

/** Files as they were after an instruction. */
export interface SavedState {
  readonly storageId: string
  readonly version: number
}

/** A storage that nobody writes any more. */
export interface KeptStorage {
  readonly storageId: string
  readonly accountId: string
  readonly sizeBytes: number
  readonly usedAt: string
  /** Of how many instructions it has the files. */
  readonly steps: number
}

/** All SQL about what builds keep. */
export class BuildCacheStore {
  readonly #database: Database
  readonly #commits: GroupCommit

  constructor(database: Database, commits: GroupCommit) {
    this.#database = database
    this.#commits = commits
  }

  /** A storage that is going to be written: its row is there before anything of it, so that nothing is left of it whatever happens. */
  async begin(storageId: string, accountId: string, now: string): Promise<void> {
    await this.#commits.write((transaction) =>
      transaction
        .insertInto('build_storages')
        .values({ storage_id: storageId, account_id: accountId, open: 1, size_bytes: 0, created_at: now, used_at: now, removed_at: null })
        .execute(),
    )
  }

  /** What there is of these keys. */
  async find(accountId: string, keys: readonly string[]): Promise<(SavedState & { readonly key: string })[]> {
    const rows = await this.#database
      .selectFrom('build_steps')
      .select(['key', 'storage_id', 'version'])
      .where('account_id', '=', accountId)
      .where('key', 'in', keys)
      .execute()
    return rows.map((row) => ({ key: row.key, storageId: row.storage_id, version: row.version }))
  }

  /** Notes that a storage is used. False when it is there no more. */
  touch(storageId: string, now: string): Promise<boolean> {
    return this.#commits.write(
      async (transaction) => {
        const { numUpdatedRows } = await transaction
          .updateTable('build_storages')
          .set({ used_at: now })
          .where('storage_id', '=', storageId)
          .where('removed_at', 'is', null)
          .executeTakeFirst()
        return numUpdatedRows > 0n
      },
      { flushed: false },
    )
  }

  /** A power cut may take it; what it speaks of is then found by the next start, and taken away. */
  async keepStep(step: SavedState & { readonly key: string; readonly accountId: string; readonly sizeBytes: number }, now: string): Promise<void> {
    const { key, accountId, storageId, version, sizeBytes } = step
    await this.#commits.write(
      async (transaction) => {
        const place = { account_id: accountId, storage_id: storageId, version, image_digest: null, created_at: now }
        await transaction
          .insertInto('build_steps')
          .values({ key, ...place })
          .onConflict((conflict) => conflict.column('key').doUpdateSet(place))
          .execute()
        await transaction.updateTable('build_storages').set({ size_bytes: sizeBytes, used_at: now }).where('storage_id', '=', storageId).execute()
      },
      { flushed: false },
    )
  }

  /** The image that was made of files that are kept. */
  async keepImage(image: SavedState & { readonly key: string; readonly accountId: string; readonly digest: string }, now: string): Promise<void> {
    const { key, accountId, storageId, version, digest } = image
    const place = { account_id: accountId, storage_id: storageId, version, image_digest: digest, created_at: now }
    await this.#commits.write(
      (transaction) =>
        transaction
          .insertInto('build_steps')
          .values({ key, ...place })
          .onConflict((conflict) => conflict.column('key').doUpdateSet(place))
          .execute(),
      { flushed: false },
    )
  }

  async findImage(accountId: string, key: string): Promise<string | undefined> {
    const row = await this.#database
      .selectFrom('build_steps')
      .select('image_digest')
      .where('account_id', '=', accountId)
      .where('key', '=', key)
      .executeTakeFirst()
    return row?.image_digest ?? undefined
  }

  /** Nobody writes it any more. */
  async close(storageId: string): Promise<void> {
    await this.#commits.write((transaction) => transaction.updateTable('build_storages').set({ open: 0 }).where('storage_id', '=', storageId).execute(), {
      flushed: false,
    })
  }

  /** The newest version that an instruction needs. */
  async lastVersion(storageId: string): Promise<number | undefined> {
    const row = await this.#database
      .selectFrom('build_steps')
      .select('version')
      .where('storage_id', '=', storageId)
      .orderBy('version', 'desc')
      .limit(1)
      .executeTakeFirst()
    return row?.version
  }

  /** Least recently used first. */
  async listKept(): Promise<KeptStorage[]> {
    const rows = await this.#database
      .selectFrom('build_storages')
      .select(['storage_id', 'account_id', 'size_bytes', 'used_at'])
      .select(sql<number | string>`(select count(*) from build_steps where build_steps.storage_id = build_storages.storage_id)`.as('steps'))
      .where('open', '=', 0)
      .where('removed_at', 'is', null)
      .orderBy('used_at')
      .orderBy('storage_id')
      .execute()
    return rows.map((row) => ({
      storageId: row.storage_id,
      accountId: row.account_id,
      sizeBytes: Number(row.size_bytes),
      usedAt: row.used_at,
      steps: Number(row.steps),
    }))
  }

  async listOpen(): Promise<string[]> {
    const rows = await this.#database.selectFrom('build_storages').select('storage_id').where('open', '=', 1).where('removed_at', 'is', null).execute()
    return rows.map((row) => row.storage_id)
  }

  /** Those whose data have still to go. */
  async listRemoved(): Promise<string[]> {
    const rows = await this.#database.selectFrom('build_storages').select('storage_id').where('removed_at', 'is not', null).execute()
    return rows.map((row) => row.storage_id)
  }

  /** From now on nothing begins with it. False when `isUsed` says so at that moment: who uses one has said so before it is touched. */
  markRemoved(storageId: string, now: string, isUsed: () => boolean): Promise<boolean> {
    return this.#commits.write(async (transaction) => {
      if (isUsed()) return false
      await transaction.deleteFrom('build_steps').where('storage_id', '=', storageId).execute()
      await transaction.updateTable('build_storages').set({ removed_at: now, open: 0 }).where('storage_id', '=', storageId).execute()
      return true
    })
  }

  /** What was in it cannot be read. */
  async forgetSteps(storageId: string): Promise<void> {
    await this.#commits.write((transaction) => transaction.deleteFrom('build_steps').where('storage_id', '=', storageId).execute())
  }

  /** Its data are gone. */
  async forget(storageId: string): Promise<void> {
    await this.#commits.write((transaction) => transaction.deleteFrom('build_storages').where('storage_id', '=', storageId).execute())
  }
}
