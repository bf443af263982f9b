import type { JobStatus, WorkspaceHold, WorkspaceVersion } from '@mags/protocol'
import { type Insertable, type Selectable, sql, type Transaction } from 'kysely'
import type { Database } from '../state/database.ts'
import type { GroupCommit } from '../state/group-commit.ts'
import type { Tables, WorkspacesTable } from '../state/schema.ts'
import type { Workspace } from './workspace.ts'

/** Who has a workspace. */
export interface Holder {
  readonly requestId: string
  readonly status: JobStatus
}

/** All SQL about workspaces. A removed one (see `removed_at`) is only found by the functions that say so. */
export class WorkspaceStore {
  readonly #database: Database
  readonly #commits: GroupCommit

  constructor(database: Database, commits: GroupCommit) {
    this.#database = database
    this.#commits = commits
  }

  async find(accountId: string, workspaceId: string, database: Database = this.#database): Promise<Workspace | undefined> {
    const row = await database
      .selectFrom('workspaces')
      .selectAll()
      .where('account_id', '=', accountId)
      .where('workspace_id', '=', workspaceId)
      .where('removed_at', 'is', null)
      .executeTakeFirst()
    return row && toWorkspace(row)
  }

  async byStorageId(storageId: string): Promise<Workspace | undefined> {
    const row = await this.#database.selectFrom('workspaces').selectAll().where('storage_id', '=', storageId).where('removed_at', 'is', null).executeTakeFirst()
    return row && toWorkspace(row)
  }

  /** Newest first. */
  async list(accountId: string, options: { offset: number; limit: number }): Promise<{ workspaces: Workspace[]; total: number }> {
    const query = this.#database.selectFrom('workspaces').where('account_id', '=', accountId).where('removed_at', 'is', null)
    const { total } = await query.select(({ fn }) => fn.countAll<number>().as('total')).executeTakeFirstOrThrow()
    const rows = await query.selectAll().orderBy('seq', 'desc').offset(options.offset).limit(options.limit).execute()
    return { workspaces: rows.map(toWorkspace), total }
  }

  /** A new workspace within a transaction of the caller; false when its name is taken. */
  async insert(transaction: Transaction<Tables>, workspace: Workspace): Promise<boolean> {
    const result = await transaction
      .insertInto('workspaces')
      .values(toRow(workspace))
      .onConflict((conflict) => conflict.doNothing())
      .executeTakeFirst()
    return (result.numInsertedOrUpdatedRows ?? 0n) > 0n
  }

  /**
   * Takes the workspace for a job within the transaction that stores the job, with a fence of its own. The holder when there is one; a holder whose job is over is none.
   */
  async hold(
    transaction: Transaction<Tables>,
    workspace: Workspace,
    change: { requestId: string; diskGb: number; baseWorkspaceId: string | null },
  ): Promise<{ readonly fence: number } | { readonly holder: Holder }> {
    const holder = await this.holderOf(workspace, transaction)
    if (holder) return { holder }
    const row = await transaction
      .updateTable('workspaces')
      .set({
        fence: sql<number>`fence + 1`,
        holder_request_id: change.requestId,
        disk_gb: change.diskGb,
        ...(change.baseWorkspaceId === null ? {} : { base_workspace_id: change.baseWorkspaceId }),
      })
      .where('storage_id', '=', workspace.storageId)
      .where('removed_at', 'is', null)
      // Of two servers that got here at once only one finds what it has seen.
      .where(({ eb, or }) => or([eb('holder_request_id', 'is', null), eb('holder_request_id', '=', workspace.holderRequestId ?? '')]))
      .returning('fence')
      .executeTakeFirst()
    if (row) return { fence: row.fence }
    const current = await this.find(workspace.accountId, workspace.workspaceId, transaction)
    const other = current && (await this.holderOf(current, transaction))
    return { holder: other ?? { requestId: current?.holderRequestId ?? workspace.storageId, status: 'pending' } }
  }

  /** The job that holds it and is not over. */
  async holderOf(workspace: Workspace, database: Database = this.#database): Promise<Holder | undefined> {
    if (workspace.holderRequestId === null) return undefined
    const row = await database
      .selectFrom('jobs')
      .select(['request_id', 'status'])
      .where('request_id', '=', workspace.holderRequestId)
      .where('status', 'in', ['pending', 'running', 'sleeping'])
      .executeTakeFirst()
    return row && { requestId: row.request_id, status: row.status }
  }

  /** A job that is not over and starts from it without holding it. */
  async userOf(workspace: Workspace): Promise<Holder | undefined> {
    const row = await this.#database
      .selectFrom('jobs')
      .select(['request_id', 'status'])
      .where(sql<boolean>`status in ('pending', 'running', 'sleeping')`)
      .where('base_storage_id', '=', workspace.storageId)
      .limit(1)
      .executeTakeFirst()
    return row && { requestId: row.request_id, status: row.status }
  }

  /** Name of the microVM whose disk it is. */
  async microvmOf({ accountId, workspaceId }: Workspace): Promise<string | undefined> {
    const query = this.#database.selectFrom('microvms').select('name').where('account_id', '=', accountId).where('workspace_id', '=', workspaceId)
    return (await query.where('wish', '!=', 'deleted').executeTakeFirst())?.name
  }

  /** A fence for something that is done without a job; undefined when a job holds the workspace or it is removed. A job submitted later has a higher one. */
  takeFence(storageId: string): Promise<WorkspaceHold | undefined> {
    return this.#commits.write(async (transaction) => {
      const row = await transaction
        .updateTable('workspaces')
        .set({ fence: sql<number>`fence + 1` })
        .where('storage_id', '=', storageId)
        .where('holder_request_id', 'is', null)
        .where('removed_at', 'is', null)
        .returning(['fence', 'scope'])
        .executeTakeFirst()
      return row && { storageId, fence: row.fence, ...(row.scope === null ? {} : { scope: row.scope }) }
    })
  }

  /** A new fence for a job that holds the workspace and goes on in another sandbox; undefined when it does not hold it any more. */
  renewFence(storageId: string, requestId: string): Promise<number | undefined> {
    return this.#commits.write((transaction) => renewHold(transaction, storageId, requestId))
  }

  /** By its subdomain: how its storage id begins. */
  async bySubdomain(subdomain: string): Promise<Workspace | undefined> {
    const row = await this.#database
      .selectFrom('workspaces')
      .selectAll()
      .where(sql<boolean>`substr(storage_id, 1, 12) = ${subdomain}`)
      .where('removed_at', 'is', null)
      .executeTakeFirst()
    return row && toWorkspace(row)
  }

  /** All changes are saved, the last ones as this version. `requestId`: by this job, of which it is noted, too. */
  recordSaved(storageId: string, version: WorkspaceVersion, at: { now: string; requestId?: string; uploadedBytes?: number }): Promise<void> {
    return this.#commits.write(async (transaction) => {
      await transaction
        .updateTable('workspaces')
        .set({ synced_at: at.now, unsaved_since: null, save_error: null })
        .where('storage_id', '=', storageId)
        .execute()
      await setVersion(transaction, storageId, version)
      if (at.requestId === undefined) return
      await transaction
        .updateTable('jobs')
        .set({
          workspace_version: version.version,
          workspace_synced_at: at.now,
          workspace_size_bytes: version.sizeBytes,
          workspace_uploaded_bytes: sql<number>`coalesce(workspace_uploaded_bytes, 0) + ${at.uploadedBytes ?? 0}`,
        })
        .where('request_id', '=', at.requestId)
        .execute()
    })
  }

  /** The object store was found to have this version; there may be changes that are not saved. */
  recordVersion(storageId: string, version: WorkspaceVersion): Promise<void> {
    return this.#commits.write((transaction) => setVersion(transaction, storageId, version))
  }

  /** Nothing is left to be saved. */
  async clearUnsaved(storageId: string): Promise<void> {
    await this.#commits.write((transaction) =>
      transaction.updateTable('workspaces').set({ unsaved_since: null, save_error: null }).where('storage_id', '=', storageId).execute(),
    )
  }

  /** Saving failed; `since` counts only when it begins with this. */
  async recordUnsaved(storageId: string, since: string, error: string): Promise<void> {
    await this.#commits.write((transaction) =>
      transaction
        .updateTable('workspaces')
        .set({ unsaved_since: sql<string>`coalesce(unsaved_since, ${since})`, save_error: error })
        .where('storage_id', '=', storageId)
        .execute(),
    )
  }

  /** False when it is not larger than what there is. */
  grow(storageId: string, diskGb: number, now: string): Promise<boolean> {
    return this.#commits.write(async (transaction) => {
      const result = await transaction
        .updateTable('workspaces')
        .set({ disk_gb: diskGb, updated_at: now })
        .where('storage_id', '=', storageId)
        .where('disk_gb', '<=', diskGb)
        .executeTakeFirst()
      return result.numUpdatedRows > 0n
    })
  }

  /** Frees its name; false when a job holds it (but `holder`, which is about to end) or it is removed already. The row stays until `forget`. */
  markRemoved(storageId: string, now: string, holder = ''): Promise<boolean> {
    return this.#commits.write(async (transaction) => {
      const result = await transaction
        .updateTable('workspaces')
        .set({ removed_at: now })
        .where('storage_id', '=', storageId)
        .where(({ eb, or }) => or([eb('holder_request_id', 'is', null), eb('holder_request_id', '=', holder)]))
        .where('removed_at', 'is', null)
        .executeTakeFirst()
      if (result.numUpdatedRows === 0n) return false
      await transaction.deleteFrom('access').where('owner', '=', `w:${storageId}`).execute()
      return true
    })
  }

  /** A row without a name of its own yet: a crash leaves something that is taken away by the next start. */
  insertRemoved(workspace: Workspace): Promise<void> {
    return this.#commits.write(async (transaction) => {
      await transaction
        .insertInto('workspaces')
        .values({ ...toRow(workspace), removed_at: workspace.createdAt })
        .execute()
    })
  }

  /** What was inserted by `insertRemoved` becomes a workspace of its account, together with what `also` writes; undefined when the name is taken. */
  publish(
    storageId: string,
    version: WorkspaceVersion | undefined,
    now: string,
    also: (transaction: Transaction<Tables>, workspace: Workspace) => Promise<void> = async () => undefined,
  ): Promise<Workspace | undefined> {
    return this.#commits.write(async (transaction) => {
      const row = await transaction.selectFrom('workspaces').selectAll().where('storage_id', '=', storageId).executeTakeFirstOrThrow()
      if (await this.find(row.account_id, row.workspace_id, transaction)) return undefined
      const published = await transaction
        .updateTable('workspaces')
        .set({ removed_at: null, synced_at: version ? now : null, version: version?.version ?? 0, size_bytes: version?.sizeBytes ?? 0 })
        .where('storage_id', '=', storageId)
        .returningAll()
        .executeTakeFirstOrThrow()
      const workspace = toWorkspace(published)
      await also(transaction, workspace)
      return workspace
    })
  }

  async isRemoved(storageId: string): Promise<boolean> {
    const row = await this.#database.selectFrom('workspaces').select('removed_at').where('storage_id', '=', storageId).executeTakeFirst()
    return row !== undefined && row.removed_at !== null
  }

  /** Nothing is left of a removed one. */
  async forget(storageId: string): Promise<void> {
    await this.#commits.write((transaction) =>
      transaction.deleteFrom('workspaces').where('storage_id', '=', storageId).where('removed_at', 'is not', null).execute(),
    )
  }

  /** Storage ids of removed ones whose data may still be there. */
  async listRemoved(): Promise<string[]> {
    const rows = await this.#database.selectFrom('workspaces').select('storage_id').where('removed_at', 'is not', null).orderBy('seq').execute()
    return rows.map((row) => row.storage_id)
  }

  /** Frees what jobs hold that are over; how many. */
  releaseStale(): Promise<number> {
    return this.#commits.write(async (transaction) => {
      const result = await transaction
        .updateTable('workspaces')
        .set({ holder_request_id: null })
        .where('holder_request_id', 'is not', null)
        .where('holder_request_id', 'not in', (jobs) =>
          jobs.selectFrom('jobs').select('request_id').where(sql<boolean>`status in ('pending', 'running', 'sleeping')`),
        )
        .executeTakeFirst()
      return Number(result.numUpdatedRows)
    })
  }
}

async function setVersion(transaction: Transaction<Tables>, storageId: string, version: WorkspaceVersion): Promise<void> {
  await transaction
    .updateTable('workspaces')
    .set({ version: version.version, size_bytes: version.sizeBytes, updated_at: version.createdAt })
    .where('storage_id', '=', storageId)
    // Versions only grow: who reports late changes nothing.
    .where('version', '<', version.version)
    .execute()
}

/** Gives back what a job holds, within the transaction that ends the job. */
export async function releaseHold(transaction: Transaction<Tables>, requestId: string): Promise<void> {
  await transaction.updateTable('workspaces').set({ holder_request_id: null }).where('holder_request_id', '=', requestId).execute()
}

/** A new fence for a job that holds the workspace, within a transaction of the caller; undefined when it does not hold it. */
export async function renewHold(transaction: Transaction<Tables>, storageId: string, requestId: string): Promise<number | undefined> {
  const row = await transaction
    .updateTable('workspaces')
    .set({ fence: sql<number>`fence + 1` })
    .where('storage_id', '=', storageId)
    .where('holder_request_id', '=', requestId)
    .where('removed_at', 'is', null)
    .returning('fence')
    .executeTakeFirst()
  if (row) await transaction.updateTable('jobs').set({ workspace_fence: row.fence }).where('request_id', '=', requestId).execute()
  return row?.fence
}

function toRow(workspace: Workspace): Insertable<WorkspacesTable> {
  return {
    storage_id: workspace.storageId,
    account_id: workspace.accountId,
    workspace_id: workspace.workspaceId,
    fence: workspace.fence,
    image: workspace.image,
    image_digest: workspace.imageDigest,
    disk_gb: workspace.diskGb,
    size_bytes: workspace.sizeBytes,
    version: workspace.version,
    base_workspace_id: workspace.baseWorkspaceId,
    scope: workspace.scope,
    created_at: workspace.createdAt,
    updated_at: workspace.updatedAt,
    synced_at: workspace.syncedAt,
    unsaved_since: workspace.unsavedSince,
    save_error: workspace.saveError,
    holder_request_id: workspace.holderRequestId,
    removed_at: null,
  }
}

function toWorkspace(row: Selectable<WorkspacesTable>): Workspace {
  return {
    accountId: row.account_id,
    workspaceId: row.workspace_id,
    storageId: row.storage_id,
    fence: row.fence,
    image: row.image,
    imageDigest: row.image_digest,
    diskGb: row.disk_gb,
    sizeBytes: row.size_bytes,
    version: row.version,
    baseWorkspaceId: row.base_workspace_id,
    scope: row.scope,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    syncedAt: row.synced_at,
    unsavedSince: row.unsaved_since,
    saveError: row.save_error,
    holderRequestId: row.holder_request_id,
  }
}
