import { type Insertable, type Selectable, sql, type Transaction } from 'kysely'
import type { Database } from '../state/database.ts'
import type { GroupCommit } from '../state/group-commit.ts'
import type { CronsTable, Tables } from '../state/schema.ts'
import type { Cron, CronRun } from './cron.ts'

/** What the scheduler needs of a cron whose time has come. */
export type DueCron = Pick<Cron, 'cronId' | 'schedule' | 'timezone' | 'nextRunAt'>

type Tx = Transaction<Tables>

/** Runs of a cron that are kept. */
const keptRuns = 100
const openJobs = sql<boolean>`jobs.status in ('pending', 'running', 'sleeping')`

/** All SQL about crons and their runs. */
export class CronStore {
  readonly #database: Database
  readonly #commits: GroupCommit

  constructor(database: Database, commits: GroupCommit) {
    this.#database = database
    this.#commits = commits
  }

  /** In a transaction of the caller; false when its name is taken. */
  async insert(transaction: Tx, cron: Cron): Promise<boolean> {
    const result = await transaction
      .insertInto('crons')
      .values(toRow(cron))
      .onConflict((conflict) => conflict.columns(['account_id', 'name']).doNothing())
      .executeTakeFirst()
    return (result.numInsertedOrUpdatedRows ?? 0n) > 0n
  }

  /** By id or name. */
  async find(accountId: string, id: string, database: Database = this.#database): Promise<Cron | undefined> {
    const rows = await database
      .selectFrom('crons')
      .selectAll()
      .where('account_id', '=', accountId)
      .where(({ eb, or }) => or([eb('cron_id', '=', id), eb('name', '=', id)]))
      .execute()
    const row = rows.find(({ cron_id }) => cron_id === id) ?? rows[0]
    return row && toCron(row)
  }

  async get(cronId: string, database: Database = this.#database): Promise<Cron | undefined> {
    const row = await database.selectFrom('crons').selectAll().where('cron_id', '=', cronId).executeTakeFirst()
    return row && toCron(row)
  }

  async isNameTaken(accountId: string, name: string, database: Database): Promise<boolean> {
    return (await database.selectFrom('crons').select('cron_id').where('account_id', '=', accountId).where('name', '=', name).executeTakeFirst()) !== undefined
  }

  async count(accountId: string, database: Database = this.#database): Promise<number> {
    const query = database.selectFrom('crons').where('account_id', '=', accountId)
    return (await query.select(({ fn }) => fn.countAll<number>().as('count')).executeTakeFirstOrThrow()).count
  }

  /** Newest first. */
  async list(accountId: string, options: { offset: number; limit: number }): Promise<{ crons: Cron[]; total: number }> {
    const total = await this.count(accountId)
    const rows = await this.#database
      .selectFrom('crons')
      .selectAll()
      .where('account_id', '=', accountId)
      .orderBy('seq', 'desc')
      .offset(options.offset)
      .limit(options.limit)
      .execute()
    return { crons: rows.map(toCron), total }
  }

  /** Everything but id and account. */
  async update(transaction: Tx, cron: Cron): Promise<void> {
    const { cron_id: _id, account_id: _account, created_at: _created, ...columns } = toRow(cron)
    await transaction.updateTable('crons').set(columns).where('cron_id', '=', cron.cronId).execute()
  }

  /** With its runs; their jobs go on. */
  async remove(cronId: string): Promise<void> {
    await this.#commits.write(async (transaction) => {
      await transaction.deleteFrom('crons').where('cron_id', '=', cronId).execute()
      await transaction.deleteFrom('cron_runs').where('cron_id', '=', cronId).execute()
    })
  }

  /** Keeps other servers from changing the cron or adding to its runs until the transaction ends; false when it is gone. */
  async lock(transaction: Tx, cronId: string): Promise<boolean> {
    const result = await transaction
      .updateTable('crons')
      .set(({ ref }) => ({ updated_at: ref('updated_at') }))
      .where('cron_id', '=', cronId)
      .executeTakeFirst()
    return result.numUpdatedRows > 0n
  }

  /** Of the crons that are scheduled: what was due first, first. */
  async due(now: string, limit: number): Promise<DueCron[]> {
    const rows = await this.#database
      .selectFrom('crons')
      .select(['cron_id', 'schedule', 'timezone', 'next_run_at'])
      .where('next_run_at', '<=', now)
      .orderBy('next_run_at')
      // Of several servers all lock them in the same order.
      .orderBy('cron_id')
      .limit(limit)
      .execute()
    return rows.map(toDue)
  }

  /** Those that are due later, in order of their ids. */
  async scheduledAfter(now: string, afterId: string, limit: number): Promise<DueCron[]> {
    const rows = await this.#database
      .selectFrom('crons')
      .select(['cron_id', 'schedule', 'timezone', 'next_run_at'])
      .where('next_run_at', '>', now)
      .where('cron_id', '>', afterId)
      .orderBy('cron_id')
      .limit(limit)
      .execute()
    return rows.map(toDue)
  }

  async nextDue(): Promise<string | undefined> {
    const row = await this.#database
      .selectFrom('crons')
      .select('next_run_at')
      .where('next_run_at', 'is not', null)
      .orderBy('next_run_at')
      .limit(1)
      .executeTakeFirst()
    return row?.next_run_at ?? undefined
  }

  /** False when it is not as it was seen any more: another server was first, or it was changed. */
  async moveOn(transaction: Tx, seen: DueCron, nextRunAt: string | null, error: string | null = null): Promise<boolean> {
    const result = await transaction
      .updateTable('crons')
      .set({ next_run_at: nextRunAt, error })
      .where('cron_id', '=', seen.cronId)
      .where('next_run_at', '=', seen.nextRunAt)
      .executeTakeFirst()
    return result.numUpdatedRows > 0n
  }

  /** False when there is one of that moment already. What is over and old is forgotten. */
  async addRun(transaction: Tx, run: CronRun): Promise<boolean> {
    const result = await transaction
      .insertInto('cron_runs')
      .values({
        run_id: run.runId,
        cron_id: run.cronId,
        scheduled_for: run.scheduledFor,
        cause: run.cause,
        status: run.status,
        reason: run.reason,
        request_id: run.requestId,
        created_at: run.createdAt,
      })
      .onConflict((conflict) => conflict.doNothing())
      .executeTakeFirst()
    if ((result.numInsertedOrUpdatedRows ?? 0n) === 0n) return false
    const oldest = await transaction
      .selectFrom('cron_runs')
      .select('seq')
      .where('cron_id', '=', run.cronId)
      .orderBy('seq', 'desc')
      .offset(keptRuns - 1)
      .limit(1)
      .executeTakeFirst()
    if (oldest === undefined) return true
    await transaction
      .deleteFrom('cron_runs')
      .where('cron_id', '=', run.cronId)
      .where('seq', '<', oldest.seq)
      .where('status', 'not in', ['starting', 'waiting'])
      .where(({ not, exists, selectFrom }) =>
        not(exists(selectFrom('jobs').select('jobs.request_id').whereRef('jobs.request_id', '=', 'cron_runs.request_id').where(openJobs))),
      )
      .execute()
    return true
  }

  /** Runs of a cron that are not over, oldest first; a few of them. */
  async openRuns(transaction: Database, cronId: string, limit: number): Promise<CronRun[]> {
    const rows = await runQuery(transaction)
      .where('cron_id', '=', cronId)
      .where(({ or, eb }) => or([eb('cron_runs.status', 'in', ['starting', 'waiting']), openJobs]))
      .orderBy('cron_runs.seq')
      .limit(limit)
      .execute()
    return rows.map(toRun)
  }

  /** Runs whose job is to be submitted, oldest first. */
  async startingRuns(limit: number, afterSeq: number): Promise<{ readonly runId: string; readonly seq: number }[]> {
    const rows = await this.#database
      .selectFrom('cron_runs')
      .select(['run_id', 'seq'])
      // The first condition is written as the partial index has it.
      .where(sql<boolean>`status in ('starting', 'waiting')`)
      .where('status', '=', 'starting')
      .where('seq', '>', afterSeq)
      .orderBy('seq')
      .limit(limit)
      .execute()
    return rows.map((row) => ({ runId: row.run_id, seq: row.seq }))
  }

  /** Crons of which runs wait. */
  async waitingCrons(): Promise<string[]> {
    const rows = await this.#database
      .selectFrom('cron_runs')
      .select('cron_id')
      .distinct()
      .where(sql<boolean>`status in ('starting', 'waiting')`)
      .where('status', '=', 'waiting')
      .execute()
    return rows.map((row) => row.cron_id)
  }

  /** Changes a run that has the status it is expected to have; false when it has another, or is gone. */
  async changeRun(
    transaction: Tx,
    runId: string,
    from: 'starting' | 'waiting',
    to: { readonly status: CronRun['status']; readonly reason: string | null; readonly requestId?: string },
  ): Promise<boolean> {
    const result = await transaction
      .updateTable('cron_runs')
      .set({ status: to.status, reason: to.reason, ...(to.requestId === undefined ? {} : { request_id: to.requestId }) })
      .where('run_id', '=', runId)
      .where('status', '=', from)
      .executeTakeFirst()
    return result.numUpdatedRows > 0n
  }

  async skipWaiting(transaction: Tx, cronId: string, reason: string): Promise<void> {
    await transaction.updateTable('cron_runs').set({ status: 'skipped', reason }).where('cron_id', '=', cronId).where('status', '=', 'waiting').execute()
  }

  async getRun(runId: string): Promise<CronRun | undefined> {
    const row = await runQuery(this.#database).where('run_id', '=', runId).executeTakeFirst()
    return row && toRun(row)
  }

  /** Newest first. */
  async listRuns(cronId: string, options: { offset: number; limit: number }): Promise<{ runs: CronRun[]; total: number }> {
    const { total } = await this.#database
      .selectFrom('cron_runs')
      .select(({ fn }) => fn.countAll<number>().as('total'))
      .where('cron_id', '=', cronId)
      .executeTakeFirstOrThrow()
    const rows = await runQuery(this.#database)
      .where('cron_id', '=', cronId)
      .orderBy('cron_runs.seq', 'desc')
      .offset(options.offset)
      .limit(options.limit)
      .execute()
    return { runs: rows.map(toRun), total }
  }

  /** By cron id. */
  async lastRuns(cronIds: readonly string[]): Promise<Map<string, CronRun>> {
    if (cronIds.length === 0) return new Map()
    const rows = await runQuery(this.#database)
      .where('cron_runs.seq', 'in', ({ selectFrom }) =>
        selectFrom('cron_runs')
          .select(({ fn }) => fn.max('cron_runs.seq').as('seq'))
          .where('cron_id', 'in', cronIds)
          .groupBy('cron_id'),
      )
      .execute()
    return new Map(rows.map((row) => [row.cron_id, toRun(row)]))
  }

  /** Uploaded files that crons name, by account. */
  async filesInUse(): Promise<{ readonly accountId: string; readonly fileIds: string[] }[]> {
    const rows = await this.#database.selectFrom('crons').select(['account_id', 'fields']).where('fields', 'like', '%"file_ids"%').execute()
    return rows.map((row) => {
      const { file_ids: fileIds } = JSON.parse(row.fields) as { file_ids?: unknown }
      return { accountId: row.account_id, fileIds: Array.isArray(fileIds) ? fileIds.map(String) : [] }
    })
  }
}

function runQuery(database: Database) {
  return database
    .selectFrom('cron_runs')
    .leftJoin('jobs', 'jobs.request_id', 'cron_runs.request_id')
    .select([
      'cron_runs.run_id',
      'cron_runs.cron_id',
      'cron_runs.scheduled_for',
      'cron_runs.cause',
      'cron_runs.status',
      'cron_runs.reason',
      'cron_runs.request_id',
      'cron_runs.created_at',
      'jobs.status as job_status',
      'jobs.exit_code',
      'jobs.started_at',
      'jobs.completed_at',
    ])
}

type RunRow = Awaited<ReturnType<ReturnType<typeof runQuery>['execute']>>[number]

function toRun(row: RunRow): CronRun {
  return {
    runId: row.run_id,
    cronId: row.cron_id,
    scheduledFor: row.scheduled_for,
    cause: row.cause,
    status: row.status,
    reason: row.reason,
    requestId: row.request_id,
    createdAt: row.created_at,
    job: row.job_status === null ? null : { status: row.job_status, exitCode: row.exit_code, startedAt: row.started_at, completedAt: row.completed_at },
  }
}

const toDue = (row: Pick<Selectable<CronsTable>, 'cron_id' | 'schedule' | 'timezone' | 'next_run_at'>): DueCron => ({
  cronId: row.cron_id,
  schedule: row.schedule,
  timezone: row.timezone,
  nextRunAt: row.next_run_at,
})

function toRow(cron: Cron): Insertable<CronsTable> {
  return {
    cron_id: cron.cronId,
    account_id: cron.accountId,
    name: cron.name,
    schedule: cron.schedule,
    timezone: cron.timezone,
    script: cron.script,
    fields: JSON.stringify(cron.fields),
    enabled: Number(cron.enabled),
    overlap: cron.overlap,
    next_run_at: cron.nextRunAt,
    error: cron.error,
    created_at: cron.createdAt,
    updated_at: cron.updatedAt,
  }
}

function toCron(row: Selectable<CronsTable>): Cron {
  return {
    cronId: row.cron_id,
    accountId: row.account_id,
    name: row.name,
    schedule: row.schedule,
    timezone: row.timezone,
    script: row.script,
    fields: JSON.parse(row.fields) as Record<string, unknown>,
    enabled: row.enabled !== 0,
    overlap: row.overlap,
    nextRunAt: row.next_run_at,
    error: row.error,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }
}
