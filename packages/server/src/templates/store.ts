import { type Insertable, type Selectable, sql, type Transaction } from 'kysely'
import type { ListedItem } from '../http/send-list.ts'
import type { Database } from '../state/database.ts'
import type { JobTemplateRevisionsTable, JobTemplatesTable } from '../state/jobs-api-schema.ts'
import type { Tables } from '../state/schema.ts'
import type { Template, TemplateRevision } from './template.ts'

type Tx = Transaction<Tables>

interface Page {
  readonly offset: number
  readonly limit: number
}

/** All SQL about templates. */
export class TemplateStore {
  readonly #database: Database

  constructor(database: Database) {
    this.#database = database
  }

  async insert(transaction: Tx, template: Template): Promise<void> {
    await transaction.insertInto('job_templates').values(toRow(template)).execute()
    await transaction.insertInto('job_template_revisions').values(toRevisionRow(template.latest)).execute()
  }

  /** With its latest revision, which is one that was not there before. */
  async update(transaction: Tx, template: Template): Promise<void> {
    const { id: _id, account_id: _account, created_at: _created, ...columns } = toRow(template)
    await transaction.updateTable('job_templates').set(columns).where('id', '=', template.id).execute()
    await transaction.insertInto('job_template_revisions').values(toRevisionRow(template.latest)).execute()
  }

  async get(accountId: string, id: string, database: Database = this.#database): Promise<Template | undefined> {
    const row = await templates(database).where('job_templates.id', '=', id).where('job_templates.account_id', '=', accountId).executeTakeFirst()
    return row && toTemplate(row)
  }

  /** The newest of a name. */
  async findByName(accountId: string, name: string): Promise<Template | undefined> {
    const query = templates(this.#database).where('job_templates.account_id', '=', accountId).where('job_templates.name', '=', name)
    const row = await query.orderBy('job_templates.seq', 'desc').limit(1).executeTakeFirst()
    return row && toTemplate(row)
  }

  /** Newest first. */
  async list(accountId: string, { offset, limit }: Page): Promise<{ templates: Template[]; total: number }> {
    const counted = this.#database.selectFrom('job_templates').where('account_id', '=', accountId)
    const { total } = await counted.select(({ fn }) => fn.countAll<number>().as('total')).executeTakeFirstOrThrow()
    const query = templates(this.#database).where('job_templates.account_id', '=', accountId)
    const rows = await query.orderBy('job_templates.seq', 'desc').offset(offset).limit(limit).execute()
    return { templates: rows.map(toTemplate), total }
  }

  /** What a page of the same list is made of, without reading it. */
  async measure(accountId: string, { offset, limit }: Page): Promise<ListedItem[]> {
    const bytes = sql<number>`octet_length(latest.script) + octet_length(latest.environment)`.as('bytes')
    const query = this.#database
      .selectFrom('job_templates')
      .innerJoin('job_template_revisions as latest', (join) =>
        join.onRef('latest.template_id', '=', 'job_templates.id').onRef('latest.revision', '=', 'job_templates.latest_revision'),
      )
      .select(['job_templates.id', bytes])
      .where('job_templates.account_id', '=', accountId)
    return await query.orderBy('job_templates.seq', 'desc').offset(offset).limit(limit).execute()
  }

  /** The same of revisions. */
  async measureRevisions(templateId: string, { offset, limit }: Page): Promise<ListedItem[]> {
    const bytes = sql<number>`octet_length(script) + octet_length(environment)`.as('bytes')
    const query = this.#database.selectFrom('job_template_revisions').select(['id', bytes]).where('template_id', '=', templateId)
    return await query.orderBy('revision', 'desc').offset(offset).limit(limit).execute()
  }

  async getRevision(templateId: string, id: string): Promise<TemplateRevision | undefined> {
    const query = this.#database.selectFrom('job_template_revisions').selectAll().where('id', '=', id).where('template_id', '=', templateId)
    const row = await query.executeTakeFirst()
    return row && toRevision(row)
  }

  /** Newest first. */
  async listRevisions(templateId: string, { offset, limit }: Page): Promise<{ revisions: TemplateRevision[]; total: number }> {
    const query = this.#database.selectFrom('job_template_revisions').where('template_id', '=', templateId)
    const { total } = await query.select(({ fn }) => fn.countAll<number>().as('total')).executeTakeFirstOrThrow()
    const rows = await query.selectAll().orderBy('revision', 'desc').offset(offset).limit(limit).execute()
    return { revisions: rows.map(toRevision), total }
  }

  /** Keeps it from being changed or deleted until the transaction ends; false when it is gone. */
  async lock(transaction: Tx, id: string): Promise<boolean> {
    const query = transaction.updateTable('job_templates').set(({ ref }) => ({ updated_at: ref('updated_at') }))
    const result = await query.where('id', '=', id).executeTakeFirst()
    return result.numUpdatedRows > 0n
  }

  /** False when it was gone. Its revisions stay, and the jobs made of it. */
  async remove(transaction: Tx, id: string): Promise<boolean> {
    const result = await transaction.deleteFrom('job_templates').where('id', '=', id).executeTakeFirst()
    return result.numDeletedRows > 0n
  }
}

function templates(database: Database) {
  return database
    .selectFrom('job_templates')
    .innerJoin('job_template_revisions as latest', (join) =>
      join.onRef('latest.template_id', '=', 'job_templates.id').onRef('latest.revision', '=', 'job_templates.latest_revision'),
    )
    .selectAll('job_templates')
    .select([
      'latest.id as revision_id',
      'latest.revision',
      'latest.script',
      'latest.environment',
      'latest.comment',
      'latest.created_at as revised_at',
      'latest.created_by as revised_by',
    ])
}

function toRevision(row: Selectable<JobTemplateRevisionsTable>): TemplateRevision {
  return {
    id: row.id,
    templateId: row.template_id,
    revision: row.revision,
    script: row.script,
    environment: readEnvironment(row.environment),
    comment: row.comment,
    createdAt: row.created_at,
    createdBy: row.created_by,
  }
}

function toTemplate(row: Awaited<ReturnType<ReturnType<typeof templates>['execute']>>[number]): Template {
  return {
    id: row.id,
    accountId: row.account_id,
    userId: row.user_id,
    name: row.name,
    description: row.description,
    vcpus: row.vcpus,
    memoryMb: row.memory_mb,
    latest: {
      id: row.revision_id,
      templateId: row.id,
      revision: row.revision,
      script: row.script,
      environment: readEnvironment(row.environment),
      comment: row.comment,
      createdAt: row.revised_at,
      createdBy: row.revised_by,
    },
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }
}

function toRow(template: Template): Insertable<JobTemplatesTable> {
  return {
    id: template.id,
    account_id: template.accountId,
    user_id: template.userId,
    name: template.name,
    description: template.description,
    script_type: 'inline',
    vcpus: template.vcpus,
    memory_mb: template.memoryMb,
    latest_revision: template.latest.revision,
    created_at: template.createdAt,
    updated_at: template.updatedAt,
  }
}

function toRevisionRow(revision: TemplateRevision): Insertable<JobTemplateRevisionsTable> {
  return {
    id: revision.id,
    template_id: revision.templateId,
    revision: revision.revision,
    script: revision.script,
    environment: JSON.stringify(revision.environment),
    comment: revision.comment,
    created_at: revision.createdAt,
    created_by: revision.createdBy,
  }
}

const readEnvironment = (json: string) => JSON.parse(json) as Record<string, string>
