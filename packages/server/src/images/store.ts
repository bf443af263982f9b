import type { Selectable } from 'kysely'
import type { Database } from '../state/database.ts'
import type { GroupCommit } from '../state/group-commit.ts'
import type { ImageTasksTable } from '../state/jobs-api-schema.ts'
import type { ImageTask, TaskEnd } from './image-task.ts'

/** All SQL about images that are being made. */
export class ImageTaskStore {
  readonly #database: Database
  readonly #commits: GroupCommit

  constructor(database: Database, commits: GroupCommit) {
    this.#database = database
    this.#commits = commits
  }

  async insert(task: ImageTask): Promise<void> {
    await this.#commits.write((transaction) =>
      transaction
        .insertInto('image_tasks')
        .values({
          id: task.id,
          account_id: task.accountId,
          name: task.name,
          kind: task.kind,
          reference: task.reference,
          status: task.status,
          digest: task.digest,
          error: task.error,
          created_at: task.createdAt,
          completed_at: task.completedAt,
        })
        .execute(),
    )
  }

  async find(accountId: string, id: string): Promise<ImageTask | undefined> {
    const row = await this.#database.selectFrom('image_tasks').selectAll().where('id', '=', id).where('account_id', '=', accountId).executeTakeFirst()
    return row && toTask(row)
  }

  /** Nothing happens to one that is over. */
  async end(id: string, end: TaskEnd): Promise<void> {
    await this.#commits.write((transaction) =>
      transaction
        .updateTable('image_tasks')
        .set({ status: end.status, digest: end.digest, error: end.error, completed_at: end.completedAt })
        .where('id', '=', id)
        .where('status', '=', 'running')
        .execute(),
    )
  }

  /** Those that a server left behind. */
  async failRunning(error: string, now: string): Promise<void> {
    await this.#commits.write((transaction) =>
      transaction.updateTable('image_tasks').set({ status: 'failed', error, completed_at: now }).where('status', '=', 'running').execute(),
    )
  }

  /** Forgets those that were over before; resolves with their ids. */
  async removeOld(before: string): Promise<string[]> {
    return await this.#commits.write(async (transaction) => {
      const old = await transaction.selectFrom('image_tasks').select('id').where('completed_at', '<', before).execute()
      await transaction.deleteFrom('image_tasks').where('completed_at', '<', before).execute()
      return old.map(({ id }) => id)
    })
  }
}

function toTask(row: Selectable<ImageTasksTable>): ImageTask {
  return {
    id: row.id,
    accountId: row.account_id,
    name: row.name,
    kind: row.kind,
    reference: row.reference,
    status: row.status,
    digest: row.digest,
    error: row.error,
    createdAt: row.created_at,
    completedAt: row.completed_at,
  }
}
