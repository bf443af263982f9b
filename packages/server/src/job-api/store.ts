import type { JobStatus } from '@mags/protocol'
import { type Insertable, type Selectable, sql, type Transaction } from 'kysely'
import type { ListedItem } from '../http/send-list.ts'
import type { Job } from '../jobs/job.ts'
import { toJob } from '../jobs/job-row.ts'
import type { Database } from '../state/database.ts'
import type { JobDefinitionsTable } from '../state/jobs-api-schema.ts'
import type { Tables } from '../state/schema.ts'
import type { DefinitionFields, JobDefinition } from './definition.ts'
import type { RunTimes } from './end-of-run.ts'

type Tx = Transaction<Tables>

/** What there is to say of a run in a list. */
export type RunSummary = Pick<
  Job,
  | 'requestId'
  | 'definitionId'
  | 'name'
  | 'status'
  | 'persistent'
  | 'exitCode'
  | 'error'
  | 'createdAt'
  | 'startedAt'
  | 'completedAt'
  | 'vmId'
  | 'attempt'
  | 'maxRetries'
> &
  RunTimes

/** What a job can be called by besides its id. */
export type NameColumn = 'name' | 'workspace_id'

interface Page {
  readonly offset: number
  readonly limit: number
}

const unfinished: readonly JobStatus[] = ['pending', 'running', 'sleeping']

/** All SQL about jobs of the Jobs API and their runs; what changes a run is in jobs/store.ts. */
export class JobDefinitionStore {
  readonly #database: Database

  constructor(database: Database) {
    this.#database = database
  }

  async insert(transaction: Tx, definition: JobDefinition): Promise<void> {
    await transaction.insertInto('job_definitions').values(toRow(definition)).execute()
  }

  async get(accountId: string, id: string, database: Database = this.#database): Promise<JobDefinition | undefined> {
    const row = await database.selectFrom('job_definitions').selectAll().where('id', '=', id).where('account_id', '=', accountId).executeTakeFirst()
    return row && toDefinition(row)
  }

  /** The newest with a value in a column. */
  async findBy(accountId: string, column: NameColumn, value: string): Promise<JobDefinition | undefined> {
    const query = this.#database.selectFrom('job_definitions').selectAll().where('account_id', '=', accountId).where(column, '=', value)
    const row = await query.orderBy('seq', 'desc').limit(1).executeTakeFirst()
    return row && toDefinition(row)
  }

  /** Of the jobs with a value in one of these columns, the newest run that is not over. */
  async findOpenRun(accountId: string, columns: readonly ('id' | NameColumn)[], value: string): Promise<Job | undefined> {
    const row = await this.#database
      .selectFrom('jobs')
      // The words of an index of what is not over, and an order of tables that SQLite keeps (its CROSS JOIN): a job may have had any number of runs.
      .crossJoin('job_definitions')
      .selectAll('jobs')
      .where(sql<boolean>`jobs.status in ('pending', 'running', 'sleeping')`)
      .where(sql<boolean>`job_definitions.id = jobs.definition_id || ''`)
      .where('job_definitions.account_id', '=', accountId)
      .where(({ eb, or }) => or(columns.map((column) => eb(`job_definitions.${column}`, '=', value))))
      .orderBy('jobs.seq', 'desc')
      .limit(1)
      .executeTakeFirst()
    return row && toJob(row)
  }

  /** Newest first. */
  async list(accountId: string, { offset, limit, templateId }: Page & { readonly templateId?: string | undefined }) {
    let query = this.#database.selectFrom('job_definitions').where('account_id', '=', accountId)
    if (templateId !== undefined) query = query.where('template_id', '=', templateId)
    const { total } = await query.select(({ fn }) => fn.countAll<number>().as('total')).executeTakeFirstOrThrow()
    const rows = await query.selectAll().orderBy('seq', 'desc').offset(offset).limit(limit).execute()
    return { definitions: rows.map(toDefinition), total }
  }

  /** What a page of the same list is made of, without reading it. */
  async measure(accountId: string, { offset, limit, templateId }: Page & { readonly templateId?: string | undefined }): Promise<ListedItem[]> {
    let query = this.#database.selectFrom('job_definitions').where('account_id', '=', accountId)
    if (templateId !== undefined) query = query.where('template_id', '=', templateId)
    const bytes = sql<number>`octet_length(script) + octet_length(fields)`.as('bytes')
    return await query.select(['id', bytes]).orderBy('seq', 'desc').offset(offset).limit(limit).execute()
  }

  /** Keeps it from being changed or deleted until the transaction ends; false when it is gone. */
  async lock(transaction: Tx, id: string): Promise<boolean> {
    const query = transaction.updateTable('job_definitions').set(({ ref }) => ({ updated_at: ref('updated_at') }))
    const result = await query.where('id', '=', id).executeTakeFirst()
    return result.numUpdatedRows > 0n
  }

  async update(transaction: Tx, definition: JobDefinition): Promise<void> {
    const { id: _id, account_id: _account, created_at: _created, ...columns } = toRow(definition)
    await transaction.updateTable('job_definitions').set(columns).where('id', '=', definition.id).execute()
  }

  /** False when it was gone. Its runs stay. */
  async remove(transaction: Tx, id: string): Promise<boolean> {
    const result = await transaction.deleteFrom('job_definitions').where('id', '=', id).executeTakeFirst()
    return result.numDeletedRows > 0n
  }

  async getRun(accountId: string, requestId: string): Promise<Job | undefined> {
    const query = this.#database.selectFrom('jobs').selectAll().where('request_id', '=', requestId).where('account_id', '=', accountId)
    const row = await query.where('kind', '=', 'job').executeTakeFirst()
    return row && toJob(row)
  }

  async newestRun(definitionId: string): Promise<Job | undefined> {
    const query = this.#database.selectFrom('jobs').selectAll().where('definition_id', '=', definitionId)
    const row = await query.orderBy('seq', 'desc').limit(1).executeTakeFirst()
    return row && toJob(row)
  }

  /** By id of the definition. */
  async newestRuns(definitionIds: readonly string[]): Promise<Map<string, RunSummary>> {
    if (definitionIds.length === 0) return new Map()
    const rows = await summaries(this.#database)
      .where('seq', 'in', ({ selectFrom }) =>
        selectFrom('jobs')
          .select(({ fn }) => fn.max('seq').as('seq'))
          .where('definition_id', 'in', definitionIds)
          .groupBy('definition_id'),
      )
      .execute()
    return new Map(rows.map((row) => [row.definition_id ?? '', toSummary(row)]))
  }

  /** Newest first. */
  async listRuns(definitionId: string, { offset, limit }: Page): Promise<{ runs: RunSummary[]; total: number }> {
    const counted = this.#database.selectFrom('jobs').where('definition_id', '=', definitionId)
    const { total } = await counted.select(({ fn }) => fn.countAll<number>().as('total')).executeTakeFirstOrThrow()
    const query = summaries(this.#database).where('definition_id', '=', definitionId)
    const rows = await query.orderBy('seq', 'desc').offset(offset).limit(limit).execute()
    return { runs: rows.map(toSummary), total }
  }

  /** Request ids of the runs that are not over. */
  async unfinishedRuns(definitionId: string): Promise<string[]> {
    const query = this.#database.selectFrom('jobs').select('request_id').where('definition_id', '=', definitionId)
    const rows = await query.where('status', 'in', unfinished).orderBy('seq').execute()
    return rows.map((row) => row.request_id)
  }

  /** How many runs ended, or are, in the same way. */
  async countRuns(definitionId: string) {
    const rows = await this.#database
      .selectFrom('jobs')
      .select(['status', 'persistent', 'exit_code', ({ fn }) => fn.countAll<number>().as('count')])
      .where('definition_id', '=', definitionId)
      .groupBy(['status', 'persistent', 'exit_code'])
      .execute()
    return rows.map(({ status, persistent, exit_code, count }) => ({ status, persistent: persistent !== 0, exitCode: exit_code, count }))
  }
}

function summaries(database: Database) {
  return database
    .selectFrom('jobs')
    .select([
      'request_id',
      'definition_id',
      'name',
      'status',
      'persistent',
      'exit_code',
      'error',
      'created_at',
      'started_at',
      'completed_at',
      'vm_id',
      'attempt',
      'max_retries',
      'attach_ms',
      'script_ms',
    ])
}

function toSummary(row: Awaited<ReturnType<ReturnType<typeof summaries>['execute']>>[number]): RunSummary {
  return {
    requestId: row.request_id,
    definitionId: row.definition_id,
    name: row.name,
    status: row.status,
    persistent: row.persistent !== 0,
    exitCode: row.exit_code,
    error: row.error,
    createdAt: row.created_at,
    startedAt: row.started_at,
    completedAt: row.completed_at,
    vmId: row.vm_id,
    attempt: row.attempt,
    maxRetries: row.max_retries,
    timings: { attachMs: row.attach_ms, scriptMs: row.script_ms },
  }
}

function toRow(definition: JobDefinition): Insertable<JobDefinitionsTable> {
  return {
    id: definition.id,
    account_id: definition.accountId,
    user_id: definition.userId,
    name: definition.name,
    description: definition.description,
    script_type: 'inline',
    script: definition.script,
    fields: JSON.stringify(definition.fields),
    workspace_id: definition.workspaceId,
    template_id: definition.templateId,
    template_revision: definition.templateRevision,
    created_at: definition.createdAt,
    updated_at: definition.updatedAt,
  }
}

function toDefinition(row: Selectable<JobDefinitionsTable>): JobDefinition {
  return {
    id: row.id,
    accountId: row.account_id,
    userId: row.user_id,
    name: row.name,
    description: row.description,
    script: row.script,
    fields: JSON.parse(row.fields) as DefinitionFields,
    workspaceId: row.workspace_id,
    templateId: row.template_id,
    templateRevision: row.template_revision,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }
}
