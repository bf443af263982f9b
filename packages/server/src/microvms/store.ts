import type { Insertable, Selectable, Transaction } from 'kysely'
import type { Job } from '../jobs/job.ts'
import { toJob } from '../jobs/job-row.ts'
import type { Database } from '../state/database.ts'
import type { GroupCommit } from '../state/group-commit.ts'
import type { MicrovmsTable } from '../state/jobs-api-schema.ts'
import type { Tables } from '../state/schema.ts'
import type { Microvm } from './microvm.ts'

type Tx = Transaction<Tables>
/** What becomes of a microVM. */
export type MicrovmChange = Partial<Pick<Microvm, 'wish' | 'requestId' | 'error'>>

/** All SQL about microVMs. One that is to be deleted is only found by the functions that say so. */
export class MicrovmStore {
  readonly #database: Database
  readonly #commits: GroupCommit

  constructor(database: Database, commits: GroupCommit) {
    this.#database = database
    this.#commits = commits
  }

  /** In a transaction of the caller; false when its name is taken. */
  async insert(transaction: Tx, microvm: Microvm): Promise<boolean> {
    const result = await transaction
      .insertInto('microvms')
      .values(toRow(microvm))
      .onConflict((conflict) => conflict.columns(['account_id', 'name']).doNothing())
      .executeTakeFirst()
    return (result.numInsertedOrUpdatedRows ?? 0n) > 0n
  }

  /** By id or name. */
  async find(accountId: string, id: string): Promise<Microvm | undefined> {
    const rows = await this.#database
      .selectFrom('microvms')
      .selectAll()
      .where('account_id', '=', accountId)
      .where('wish', '!=', 'deleted')
      .where(({ eb, or }) => or([eb('id', '=', id), eb('name', '=', id)]))
      .execute()
    const row = rows.find((one) => one.id === id) ?? rows[0]
    return row && toMicrovm(row)
  }

  /** Also one that is to be deleted. */
  async get(id: string, database: Database = this.#database): Promise<Microvm | undefined> {
    const row = await database.selectFrom('microvms').selectAll().where('id', '=', id).executeTakeFirst()
    return row && toMicrovm(row)
  }

  /** The one whose disk a workspace is, also one that is to be deleted. */
  async ofWorkspace(accountId: string, workspaceId: string): Promise<Microvm | undefined> {
    const query = this.#database.selectFrom('microvms').selectAll().where('account_id', '=', accountId).where('workspace_id', '=', workspaceId)
    const row = await query.executeTakeFirst()
    return row && toMicrovm(row)
  }

  /** Newest first. */
  async list(accountId: string, options: { offset: number; limit: number }): Promise<{ microvms: Microvm[]; total: number }> {
    const query = this.#database.selectFrom('microvms').where('account_id', '=', accountId).where('wish', '!=', 'deleted')
    const { total } = await query.select(({ fn }) => fn.countAll<number>().as('total')).executeTakeFirstOrThrow()
    const rows = await query.selectAll().orderBy('seq', 'desc').offset(options.offset).limit(options.limit).execute()
    return { microvms: rows.map(toMicrovm), total }
  }

  /** All that have something to be done or to be watched, also those that are to be deleted, oldest first. */
  async listUnsettled(): Promise<Microvm[]> {
    const rows = await this.#database
      .selectFrom('microvms')
      .selectAll()
      .where(({ eb, or, exists, selectFrom }) =>
        or([
          eb('wish', '!=', 'stopped'),
          exists(
            selectFrom('jobs')
              .select('jobs.request_id')
              .whereRef('jobs.definition_id', '=', 'microvms.id')
              .where('jobs.status', 'in', ['pending', 'running', 'sleeping']),
          ),
        ]),
      )
      .orderBy('seq')
      .execute()
    return rows.map(toMicrovm)
  }

  /** The newest job of each, by id of the microVM. */
  async newestJobs(ids: readonly string[], database: Database = this.#database): Promise<Map<string, Job>> {
    if (ids.length === 0) return new Map()
    const newest = database
      .selectFrom('jobs')
      .select(({ fn }) => fn.max('seq').as('seq'))
      .where('definition_id', 'in', ids)
      .where('kind', '=', 'microvm')
      .groupBy('definition_id')
    const rows = await database.selectFrom('jobs').selectAll().where('seq', 'in', newest).execute()
    return new Map(rows.flatMap((row) => (row.definition_id === null ? [] : [[row.definition_id, toJob(row)] as const])))
  }

  async newestJob(id: string, database: Database = this.#database): Promise<Job | undefined> {
    return (await this.newestJobs([id], database)).get(id)
  }

  /** What its user wishes, by what it is; nothing is changed when `decide` says undefined. Undefined when there is none, or it is to be deleted. */
  change(id: string, now: string, decide: (microvm: Microvm) => MicrovmChange | undefined): Promise<Microvm | undefined> {
    return this.#commits.write(async (transaction) => {
      // Before it is read, so that of two servers one waits for the other.
      await transaction
        .updateTable('microvms')
        .set(({ ref }) => ({ updated_at: ref('updated_at') }))
        .where('id', '=', id)
        .execute()
      const microvm = await this.get(id, transaction)
      if (microvm === undefined || microvm.wish === 'deleted') return undefined
      const change = decide(microvm)
      if (change === undefined) return microvm
      await transaction
        .updateTable('microvms')
        .set({ ...columnsOf(change), updated_at: now })
        .where('id', '=', id)
        .execute()
      return { ...microvm, ...change }
    })
  }

  /** What was seen of the job that it runs as; nothing when that is not the one any more, or something else is wished meanwhile. */
  async note(id: string, requestId: string, now: string, change: MicrovmChange): Promise<void> {
    await this.#commits.write((transaction) =>
      transaction
        .updateTable('microvms')
        .set({ ...columnsOf(change), updated_at: now })
        .where('id', '=', id)
        .where('request_id', '=', requestId)
        .where('wish', '=', 'running')
        .where('error', 'is', null)
        .execute(),
    )
  }

  /** It could not be started. */
  async noteRefused(id: string, now: string, error: string): Promise<void> {
    await this.#commits.write((transaction) =>
      transaction
        .updateTable('microvms')
        .set({ error, updated_at: now })
        .where('id', '=', id)
        .where('wish', '=', 'running')
        .where('request_id', 'is', null)
        .execute(),
    )
  }

  /** It runs as this job from now on, in the transaction that stores the job; false when no job is wished for any more. */
  async setJob(transaction: Tx, id: string, requestId: string): Promise<boolean> {
    const result = await transaction
      .updateTable('microvms')
      .set({ request_id: requestId })
      .where('id', '=', id)
      .where('wish', '=', 'running')
      .where('request_id', 'is', null)
      .where('error', 'is', null)
      .executeTakeFirst()
    return result.numUpdatedRows > 0n
  }

  /** In a transaction of the caller. */
  async setKeyDownloaded(transaction: Tx, id: string, now: string): Promise<void> {
    await transaction.updateTable('microvms').set({ key_downloaded_at: now }).where('id', '=', id).where('key_downloaded_at', 'is', null).execute()
  }

  /** It cannot be deleted now. */
  async keep(id: string, now: string): Promise<void> {
    await this.#commits.write((transaction) =>
      transaction.updateTable('microvms').set({ wish: 'stopped', updated_at: now }).where('id', '=', id).where('wish', '=', 'deleted').execute(),
    )
  }

  async remove(id: string): Promise<void> {
    await this.#commits.write((transaction) => transaction.deleteFrom('microvms').where('id', '=', id).execute())
  }
}

function columnsOf({ wish, requestId, error }: MicrovmChange) {
  return {
    ...(wish === undefined ? {} : { wish }),
    ...(requestId === undefined ? {} : { request_id: requestId }),
    ...(error === undefined ? {} : { error }),
  }
}

function toRow(microvm: Microvm): Insertable<MicrovmsTable> {
  return {
    id: microvm.id,
    account_id: microvm.accountId,
    name: microvm.name,
    wish: microvm.wish,
    request_id: microvm.requestId,
    error: microvm.error,
    cpu: microvm.cpu,
    memory_mb: microvm.memoryMb,
    disk_gb: microvm.diskGb,
    image: microvm.image,
    image_digest: microvm.imageDigest,
    isolation_wish: microvm.isolationWish,
    init: Number(microvm.init),
    ip_lease: Number(microvm.ipLease),
    port: microvm.port,
    workspace_id: microvm.workspaceId,
    key_generated: Number(microvm.keyGenerated),
    key_downloaded_at: microvm.keyDownloadedAt,
    created_at: microvm.createdAt,
    updated_at: microvm.updatedAt,
  }
}

function toMicrovm(row: Selectable<MicrovmsTable>): Microvm {
  return {
    id: row.id,
    accountId: row.account_id,
    name: row.name,
    wish: row.wish,
    requestId: row.request_id,
    error: row.error,
    cpu: row.cpu,
    memoryMb: row.memory_mb,
    diskGb: row.disk_gb,
    image: row.image,
    imageDigest: row.image_digest,
    isolationWish: row.isolation_wish === 'container' ? 'container' : 'vm',
    init: row.init !== 0,
    ipLease: row.ip_lease !== 0,
    port: row.port,
    workspaceId: row.workspace_id,
    keyGenerated: row.key_generated !== 0,
    keyDownloadedAt: row.key_downloaded_at,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }
}
