import { type Kysely, sql } from 'kysely'
import type { DatabaseConfig } from './database.ts'

/** Jobs of the Jobs API with their templates, microVMs, leased addresses, and images that are being made. */
export async function jobsApi(db: Kysely<unknown>, kind: DatabaseConfig['kind']) {
  await runColumns(db)
  await definitions(db, kind)
  await templates(db, kind)
  await microvms(db, kind)
  await addresses(db)
  await imageTasks(db, kind)
}

/** A table whose rows have their order of arrival. */
function ordered(db: Kysely<unknown>, kind: DatabaseConfig['kind'], name: string) {
  // SQLite's integer has 64 bits, PostgreSQL's 32.
  const sequence = kind === 'sqlite' ? sql`integer` : sql`bigint`
  return db.schema
    .createTable(name)
    .addColumn('seq', sequence, (column) => (kind === 'sqlite' ? column.primaryKey().autoIncrement() : column.primaryKey().generatedAlwaysAsIdentity()))
}

async function runColumns(db: Kysely<unknown>) {
  const counts = [
    ['priority', 0],
    ['max_retries', 0],
    ['retry_backoff_seconds', 0],
    ['attempt', 1],
    ['init', 0],
    ['ip_lease', 0],
  ] as const
  for (const [name, start] of counts) {
    await db.schema
      .alterTable('jobs')
      .addColumn(name, 'integer', (column) => column.notNull().defaultTo(start))
      .execute()
  }
  await db.schema
    .alterTable('jobs')
    .addColumn('kind', 'text', (column) => column.notNull().defaultTo('mags'))
    .execute()
  for (const name of ['definition_id', 'not_before', 'workspace_scope', 'image_digest', 'ipv4_address', 'ipv6_address'] as const)
    await db.schema.alterTable('jobs').addColumn(name, 'text').execute()
  await db.schema.alterTable('jobs').addColumn('warm', 'integer').execute()
  await db.schema.alterTable('access').addColumn('authorized_keys', 'text').execute()
  await db.schema.alterTable('workspaces').addColumn('scope', 'text').execute()
  await sql`create index jobs_by_definition on jobs (definition_id, seq) where definition_id is not null`.execute(db)
}

async function definitions(db: Kysely<unknown>, kind: DatabaseConfig['kind']) {
  await ordered(db, kind, 'job_definitions')
    .addColumn('id', 'text', (column) => column.notNull().unique())
    .addColumn('account_id', 'text', (column) => column.notNull())
    .addColumn('user_id', 'text', (column) => column.notNull())
    .addColumn('name', 'text', (column) => column.notNull())
    .addColumn('description', 'text')
    .addColumn('script_type', 'text', (column) => column.notNull())
    .addColumn('script', 'text', (column) => column.notNull())
    // JSON object: the other members of a create, as they were given.
    .addColumn('fields', 'text', (column) => column.notNull())
    .addColumn('workspace_id', 'text')
    .addColumn('template_id', 'text')
    .addColumn('template_revision', 'integer')
    .addColumn('created_at', 'text', (column) => column.notNull())
    .addColumn('updated_at', 'text', (column) => column.notNull())
    .execute()
  await db.schema.createIndex('job_definitions_by_account').on('job_definitions').columns(['account_id', 'seq']).execute()
  await sql`create index job_definitions_by_template on job_definitions (template_id, seq) where template_id is not null`.execute(db)
}

async function templates(db: Kysely<unknown>, kind: DatabaseConfig['kind']) {
  await ordered(db, kind, 'job_templates')
    .addColumn('id', 'text', (column) => column.notNull().unique())
    .addColumn('account_id', 'text', (column) => column.notNull())
    .addColumn('user_id', 'text', (column) => column.notNull())
    .addColumn('name', 'text', (column) => column.notNull())
    .addColumn('description', 'text')
    .addColumn('script_type', 'text', (column) => column.notNull())
    .addColumn('vcpus', 'integer', (column) => column.notNull())
    .addColumn('memory_mb', 'integer', (column) => column.notNull())
    .addColumn('latest_revision', 'integer', (column) => column.notNull())
    .addColumn('created_at', 'text', (column) => column.notNull())
    .addColumn('updated_at', 'text', (column) => column.notNull())
    .execute()
  await db.schema.createIndex('job_templates_by_account').on('job_templates').columns(['account_id', 'seq']).execute()
  await db.schema
    .createTable('job_template_revisions')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('template_id', 'text', (column) => column.notNull())
    .addColumn('revision', 'integer', (column) => column.notNull())
    .addColumn('script', 'text', (column) => column.notNull())
    .addColumn('environment', 'text', (column) => column.notNull())
    .addColumn('comment', 'text')
    .addColumn('created_at', 'text', (column) => column.notNull())
    .addColumn('created_by', 'text', (column) => column.notNull())
    .addUniqueConstraint('job_template_revisions_once', ['template_id', 'revision'])
    .execute()
}

async function microvms(db: Kysely<unknown>, kind: DatabaseConfig['kind']) {
  await ordered(db, kind, 'microvms')
    .addColumn('id', 'text', (column) => column.notNull().unique())
    .addColumn('account_id', 'text', (column) => column.notNull())
    .addColumn('name', 'text', (column) => column.notNull())
    // What is wished for; what is so is seen with the job it runs as.
    .addColumn('wish', 'text', (column) => column.notNull())
    .addColumn('request_id', 'text')
    .addColumn('error', 'text')
    .addColumn('cpu', 'integer', (column) => column.notNull())
    .addColumn('memory_mb', 'integer', (column) => column.notNull())
    .addColumn('disk_gb', 'integer', (column) => column.notNull())
    .addColumn('image', 'text', (column) => column.notNull())
    .addColumn('image_digest', 'text', (column) => column.notNull())
    .addColumn('isolation_wish', 'text', (column) => column.notNull())
    .addColumn('init', 'integer', (column) => column.notNull())
    .addColumn('ip_lease', 'integer', (column) => column.notNull())
    .addColumn('port', 'integer', (column) => column.notNull())
    .addColumn('workspace_id', 'text', (column) => column.notNull())
    .addColumn('key_generated', 'integer', (column) => column.notNull())
    .addColumn('key_downloaded_at', 'text')
    .addColumn('created_at', 'text', (column) => column.notNull())
    .addColumn('updated_at', 'text', (column) => column.notNull())
    .addUniqueConstraint('microvms_by_name', ['account_id', 'name'])
    .execute()
  await db.schema.createIndex('microvms_by_account').on('microvms').columns(['account_id', 'seq']).execute()
}

/** An address is in here as long as somebody has it, so that it cannot be handed out twice, and for some time after that. */
async function addresses(db: Kysely<unknown>) {
  await db.schema
    .createTable('ip_leases')
    .addColumn('address', 'text', (column) => column.primaryKey())
    .addColumn('request_id', 'text', (column) => column.notNull())
    .addColumn('account_id', 'text', (column) => column.notNull())
    .addColumn('created_at', 'text', (column) => column.notNull())
    .addColumn('released_at', 'text')
    .execute()
  await db.schema.createIndex('ip_leases_by_job').on('ip_leases').column('request_id').execute()
}

async function imageTasks(db: Kysely<unknown>, kind: DatabaseConfig['kind']) {
  await ordered(db, kind, 'image_tasks')
    .addColumn('id', 'text', (column) => column.notNull().unique())
    .addColumn('account_id', 'text', (column) => column.notNull())
    .addColumn('name', 'text', (column) => column.notNull())
    .addColumn('kind', 'text', (column) => column.notNull())
    .addColumn('reference', 'text', (column) => column.notNull())
    .addColumn('status', 'text', (column) => column.notNull())
    .addColumn('digest', 'text')
    .addColumn('error', 'text')
    .addColumn('created_at', 'text', (column) => column.notNull())
    .addColumn('completed_at', 'text')
    .execute()
}
