import type { Selectable, Transaction } from 'kysely'
import type { Database } from '../state/database.ts'
import type { GroupCommit } from '../state/group-commit.ts'
import type { FilesTable, Tables } from '../state/schema.ts'

export interface UploadedFile {
  readonly fileId: string
  readonly accountId: string
  readonly fileName: string
  readonly sizeBytes: number
  readonly createdAt: string
  readonly lastUsedAt: string
}

/** Rows asked for or deleted in one statement. */
const chunkRows = 500

/** All SQL about uploaded files. */
export class FileStore {
  readonly #database: Database
  readonly #commits: GroupCommit

  constructor(database: Database, commits: GroupCommit) {
    this.#database = database
    this.#commits = commits
  }

  insert(file: UploadedFile): Promise<void> {
    const { fileId, accountId, fileName, sizeBytes, createdAt, lastUsedAt } = file
    const row = { file_id: fileId, account_id: accountId, file_name: fileName, size_bytes: sizeBytes, created_at: createdAt, last_used_at: lastUsedAt }
    return this.#commits.write(async (transaction) => void (await transaction.insertInto('files').values(row).execute()))
  }

  async get(accountId: string, fileId: string): Promise<UploadedFile | undefined> {
    const [file] = await this.find(accountId, [fileId])
    return file
  }

  /** Those there are, in no order. */
  async find(accountId: string, fileIds: readonly string[]): Promise<UploadedFile[]> {
    const found: UploadedFile[] = []
    for (const ids of chunks(fileIds)) {
      const rows = await this.#database.selectFrom('files').selectAll().where('account_id', '=', accountId).where('file_id', 'in', ids).execute()
      found.push(...rows.map(toFile))
    }
    return found
  }

  async list(accountId: string, { offset, limit }: { offset: number; limit: number }): Promise<{ files: UploadedFile[]; total: number }> {
    const query = this.#database.selectFrom('files').where('account_id', '=', accountId)
    const { total } = await query.select(({ fn }) => fn.countAll<number>().as('total')).executeTakeFirstOrThrow()
    const rows = await query.selectAll().orderBy('seq', 'desc').offset(offset).limit(limit).execute()
    return { files: rows.map(toFile), total: Number(total) }
  }

  /** Not flushed: what a power cut takes is at most one use. */
  touch(accountId: string, fileIds: readonly string[], now: string): Promise<void> {
    const change = async (transaction: Transaction<Tables>) => {
      for (const ids of chunks(fileIds)) {
        await transaction.updateTable('files').set({ last_used_at: now }).where('account_id', '=', accountId).where('file_id', 'in', ids).execute()
      }
    }
    return this.#commits.write(change, { flushed: false })
  }

  /** False when there was none. */
  remove(accountId: string, fileId: string): Promise<boolean> {
    return this.#commits.write(async (transaction) => {
      const result = await transaction.deleteFrom('files').where('account_id', '=', accountId).where('file_id', '=', fileId).executeTakeFirst()
      return result.numDeletedRows > 0n
    })
  }

  /** Forgets what was last used before, of all accounts. */
  removeUnused(before: string): Promise<void> {
    return this.#commits.write(async (transaction) => void (await transaction.deleteFrom('files').where('last_used_at', '<', before).execute()))
  }

  /** Which of these are files of some account. */
  async known(fileIds: readonly string[]): Promise<Set<string>> {
    const known = new Set<string>()
    for (const ids of chunks(fileIds)) {
      const rows = await this.#database.selectFrom('files').select('file_id').where('file_id', 'in', ids).execute()
      for (const row of rows) known.add(row.file_id)
    }
    return known
  }
}

function* chunks(ids: readonly string[]): Generator<readonly string[]> {
  for (let at = 0; at < ids.length; at += chunkRows) yield ids.slice(at, at + chunkRows)
}

function toFile(row: Selectable<FilesTable>): UploadedFile {
  return {
    fileId: row.file_id,
    accountId: row.account_id,
    fileName: row.file_name,
    sizeBytes: Number(row.size_bytes),
    createdAt: row.created_at,
    lastUsedAt: row.last_used_at,
  }
}
