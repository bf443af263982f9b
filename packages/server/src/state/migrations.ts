import { type Kysely, sql } from 'kysely'
import type { Migration } from 'kysely/migration'
import type { DatabaseConfig } from './database.ts'

/** Every change of the tables, in order; a migration that was released is never edited. */
export function migrationsFor(kind: DatabaseConfig['kind']): Record<string, Migration> {
  return {
    '0001-jobs-and-tokens': { up: (db) => jobsAndTokens(db, kind) },
    '0002-workspaces': { up: (db) => workspaces(db, kind) },
    '0003-files': { up: (db) => files(db, kind) },
  }
}

async function jobsAndTokens(db: Kysely<unknown>, kind: DatabaseConfig['kind']) {
  const sequence = kind === 'sqlite' ? sql`integer` : sql`bigint`
  await db.schema
    .createTable('jobs')
    .addColumn('seq', sequence, (column) => (kind === 'sqlite' ? column.primaryKey().autoIncrement() : column.primaryKey().generatedAlwaysAsIdentity()))
    .addColumn('request_id', 'text', (column) => column.notNull().unique())
    .addColumn('job_id', 'text', (column) => column.notNull())
    .addColumn('account_id', 'text', (column) => column.notNull())
    .addColumn('name', 'text', (column) => column.notNull())
    .addColumn('status', 'text', (column) => column.notNull())
    .addColumn('persistent', 'integer', (column) => column.notNull())
    .addColumn('script', 'text', (column) => column.notNull())
    .addColumn('environment', 'text', (column) => column.notNull())
    .addColumn('startup_command', 'text')
    .addColumn('no_sleep', 'integer', (column) => column.notNull())
    .addColumn('timeout_seconds', 'integer')
    .addColumn('image', 'text', (column) => column.notNull())
    .addColumn('isolation_wish', 'text', (column) => column.notNull())
    .addColumn('isolation', 'text')
    .addColumn('vcpus', 'integer', (column) => column.notNull())
    .addColumn('memory_mb', 'integer', (column) => column.notNull())
    .addColumn('disk_gb', 'integer', (column) => column.notNull())
    .addColumn('port', 'integer', (column) => column.notNull())
    .addColumn('subdomain', 'text', (column) => column.notNull().unique())
    .addColumn('workspace_id', 'text')
    .addColumn('vm_id', 'text')
    .addColumn('exit_code', 'integer')
    .addColumn('error', 'text')
    .addColumn('queue_ms', 'double precision')
    .addColumn('acquire_ms', 'double precision')
    .addColumn('attach_ms', 'double precision')
    .addColumn('first_byte_ms', 'double precision')
    .addColumn('start_ms', 'double precision')
    .addColumn('script_ms', 'double precision')
    .addColumn('created_at', 'text', (column) => column.notNull())
    .addColumn('started_at', 'text')
    .addColumn('completed_at', 'text')
    .execute()
  await db.schema.createIndex('jobs_by_account').on('jobs').columns(['account_id', 'seq']).execute()
  await db.schema.createIndex('jobs_by_name').on('jobs').columns(['account_id', 'name', 'seq']).execute()
  // Only unfinished jobs are looked for by status alone (recovery); the index stays small however many jobs have ended.
  await sql`create index jobs_unfinished on jobs (seq) where status in ('pending', 'running', 'sleeping')`.execute(db)
  await db.schema
    .createTable('tokens')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('account_id', 'text', (column) => column.notNull())
    .addColumn('name', 'text', (column) => column.notNull())
    .addColumn('hash', 'text', (column) => column.notNull().unique())
    .addColumn('prefix', 'text', (column) => column.notNull())
    .addColumn('created_at', 'text', (column) => column.notNull())
    .addColumn('last_used_at', 'text')
    .execute()
  await db.schema
    .createTable('idempotency_keys')
    .addColumn('account_id', 'text', (column) => column.notNull())
    .addColumn('key', 'text', (column) => column.notNull())
    .addColumn('body_hash', 'text', (column) => column.notNull())
    .addColumn('answer', 'text', (column) => column.notNull())
    .addColumn('created_at', 'text', (column) => column.notNull())
    .addPrimaryKeyConstraint('idempotency_keys_pk', ['account_id', 'key'])
    .execute()
  await db.schema.createIndex('idempotency_keys_by_time').on('idempotency_keys').column('created_at').execute()
}

async function workspaces(db: Kysely<unknown>, kind: DatabaseConfig['kind']) {
  // SQLite's integer has 64 bits, PostgreSQL's 32.
  const large = kind === 'sqlite' ? sql`integer` : sql`bigint`
  await db.schema
    .createTable('workspaces')
    .addColumn('seq', large, (column) => (kind === 'sqlite' ? column.primaryKey().autoIncrement() : column.primaryKey().generatedAlwaysAsIdentity()))
    .addColumn('storage_id', 'text', (column) => column.notNull().unique())
    .addColumn('account_id', 'text', (column) => column.notNull())
    .addColumn('workspace_id', 'text', (column) => column.notNull())
    .addColumn('fence', large, (column) => column.notNull())
    .addColumn('image', 'text', (column) => column.notNull())
    .addColumn('image_digest', 'text', (column) => column.notNull())
    .addColumn('disk_gb', 'integer', (column) => column.notNull())
    .addColumn('size_bytes', large, (column) => column.notNull())
    .addColumn('version', 'integer', (column) => column.notNull())
    .addColumn('base_workspace_id', 'text')
    .addColumn('created_at', 'text', (column) => column.notNull())
    .addColumn('updated_at', 'text', (column) => column.notNull())
    .addColumn('synced_at', 'text')
    .addColumn('unsaved_since', 'text')
    .addColumn('save_error', 'text')
    .addColumn('holder_request_id', 'text')
    .addColumn('removed_at', 'text')
    .execute()
  // A name is free again once its workspace is removed, while the row stays until the object store has forgotten it, too.
  await sql`create unique index workspaces_by_name on workspaces (account_id, workspace_id) where removed_at is null`.execute(db)
  await sql`create index workspaces_held on workspaces (holder_request_id) where holder_request_id is not null`.execute(db)
  await sql`create index workspaces_removed on workspaces (seq) where removed_at is not null`.execute(db)
  const columns = [
    ['base_workspace_id', 'text'],
    ['workspace_storage_id', 'text'],
    ['workspace_fence', large],
    ['base_storage_id', 'text'],
    ['workspace_version', 'integer'],
    ['workspace_synced_at', 'text'],
    ['workspace_size_bytes', large],
    ['workspace_uploaded_bytes', large],
  ] as const
  // One statement each: SQLite adds one column at a time.
  for (const [name, type] of columns) await db.schema.alterTable('jobs').addColumn(name, type).execute()
  await db.schema
    .alterTable('jobs')
    .addColumn('file_ids', 'text', (column) => column.notNull().defaultTo('[]'))
    .execute()
  await sql`create index jobs_by_workspace on jobs (account_id, workspace_id, seq) where workspace_id is not null`.execute(db)
}

async function files(db: Kysely<unknown>, kind: DatabaseConfig['kind']) {
  const sequence = kind === 'sqlite' ? sql`integer` : sql`bigint`
  await db.schema
    .createTable('files')
    .addColumn('seq', sequence, (column) => (kind === 'sqlite' ? column.primaryKey().autoIncrement() : column.primaryKey().generatedAlwaysAsIdentity()))
    .addColumn('file_id', 'text', (column) => column.notNull().unique())
    .addColumn('account_id', 'text', (column) => column.notNull())
    .addColumn('file_name', 'text', (column) => column.notNull())
    .addColumn('size_bytes', 'integer', (column) => column.notNull())
    .addColumn('created_at', 'text', (column) => column.notNull())
    .addColumn('last_used_at', 'text', (column) => column.notNull())
    .execute()
  await db.schema.createIndex('files_by_account').on('files').columns(['account_id', 'seq']).execute()
  await db.schema.createIndex('files_by_use').on('files').column('last_used_at').execute()
}
