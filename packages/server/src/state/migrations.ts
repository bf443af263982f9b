import { type Kysely, sql } from 'kysely'
import type { Migration } from 'kysely/migration'
import { buildCache } from './build-cache-schema.ts'
import type { DatabaseConfig } from './database.ts'
import { jobsApi } from './migrate-jobs-api.ts'

/** Every change of the tables, in order; a migration that was released is never edited. */
export function migrationsFor(kind: DatabaseConfig['kind']): Record<string, Migration> {
  return {
    '0001-jobs-and-tokens': { up: (db) => jobsAndTokens(db, kind) },
    '0002-workspaces': { up: (db) => workspaces(db, kind) },
    '0003-files': { up: (db) => files(db, kind) },
    '0004-sleep-and-access': { up: (db) => sleepAndAccess(db, kind) },
    '0005-aliases': { up: (db) => aliases(db, kind) },
    '0006-cron': { up: (db) => cron(db, kind) },
    '0007-forks': { up: forks },
    '0008-jobs-api': { up: (db) => jobsApi(db, kind) },
    '0009-build-cache': { up: (db) => buildCache(db, kind) },
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

async function aliases(db: Kysely<unknown>, kind: DatabaseConfig['kind']) {
  const sequence = kind === 'sqlite' ? sql`integer` : sql`bigint`
  await db.schema
    .createTable('url_aliases')
    .addColumn('seq', sequence, (column) => (kind === 'sqlite' ? column.primaryKey().autoIncrement() : column.primaryKey().generatedAlwaysAsIdentity()))
    .addColumn('subdomain', 'text', (column) => column.notNull().unique())
    .addColumn('account_id', 'text', (column) => column.notNull())
    .addColumn('workspace_id', 'text', (column) => column.notNull())
    .addColumn('domain', 'text', (column) => column.unique())
    .addColumn('created_at', 'text', (column) => column.notNull())
    .addColumn('updated_at', 'text', (column) => column.notNull())
    .execute()
  await db.schema.createIndex('url_aliases_by_account').on('url_aliases').columns(['account_id', 'seq']).execute()
}

async function cron(db: Kysely<unknown>, kind: DatabaseConfig['kind']) {
  const sequence = kind === 'sqlite' ? sql`integer` : sql`bigint`
  await db.schema
    .createTable('crons')
    .addColumn('seq', sequence, (column) => (kind === 'sqlite' ? column.primaryKey().autoIncrement() : column.primaryKey().generatedAlwaysAsIdentity()))
    .addColumn('cron_id', 'text', (column) => column.notNull().unique())
    .addColumn('account_id', 'text', (column) => column.notNull())
    .addColumn('name', 'text', (column) => column.notNull())
    .addColumn('schedule', 'text', (column) => column.notNull())
    .addColumn('timezone', 'text', (column) => column.notNull())
    .addColumn('script', 'text', (column) => column.notNull())
    .addColumn('fields', 'text', (column) => column.notNull())
    .addColumn('enabled', 'integer', (column) => column.notNull())
    .addColumn('overlap', 'text', (column) => column.notNull())
    .addColumn('next_run_at', 'text')
    .addColumn('error', 'text')
    .addColumn('created_at', 'text', (column) => column.notNull())
    .addColumn('updated_at', 'text', (column) => column.notNull())
    .addUniqueConstraint('crons_by_name', ['account_id', 'name'])
    .execute()
  await db.schema.createIndex('crons_by_account').on('crons').columns(['account_id', 'seq']).execute()
  await sql`create index crons_due on crons (next_run_at) where next_run_at is not null`.execute(db)
  await db.schema
    .createTable('cron_runs')
    .addColumn('seq', sequence, (column) => (kind === 'sqlite' ? column.primaryKey().autoIncrement() : column.primaryKey().generatedAlwaysAsIdentity()))
    .addColumn('run_id', 'text', (column) => column.notNull().unique())
    .addColumn('cron_id', 'text', (column) => column.notNull())
    .addColumn('scheduled_for', 'text', (column) => column.notNull())
    .addColumn('cause', 'text', (column) => column.notNull())
    .addColumn('status', 'text', (column) => column.notNull())
    .addColumn('reason', 'text')
    .addColumn('request_id', 'text')
    .addColumn('created_at', 'text', (column) => column.notNull())
    .execute()
  await db.schema.createIndex('cron_runs_by_cron').on('cron_runs').columns(['cron_id', 'seq']).execute()
  // Of several servers, and over restarts, only one has the run of a moment.
  await sql`create unique index cron_runs_once on cron_runs (cron_id, scheduled_for) where cause <> 'manual'`.execute(db)
  await sql`create index cron_runs_open on cron_runs (seq) where status in ('starting', 'waiting')`.execute(db)
}

async function sleepAndAccess(db: Kysely<unknown>, kind: DatabaseConfig['kind']) {
  const large = kind === 'sqlite' ? sql`integer` : sql`bigint`
  const columns = [
    ['sleep_stage', 'text'],
    ['slept_at', 'text'],
    ['woken_at', 'text'],
    ['wake_reason', 'text'],
    ['wake_ms', 'double precision'],
    ['egress', 'text'],
    ['egress_bytes', large],
  ] as const
  for (const [name, type] of columns) await db.schema.alterTable('jobs').addColumn(name, type).execute()
  for (const name of ['restarted', 'url_used']) {
    await db.schema
      .alterTable('jobs')
      .addColumn(name, 'integer', (column) => column.notNull().defaultTo(0))
      .execute()
  }
  // A workspace's subdomain is how its storage id begins.
  await sql`create unique index workspaces_by_subdomain on workspaces (substr(storage_id, 1, 12))`.execute(db)
  await db.schema
    .createTable('access')
    .addColumn('owner', 'text', (column) => column.primaryKey())
    .addColumn('visibility', 'text', (column) => column.notNull())
    .addColumn('ssh_port', 'integer', (column) => column.unique())
    .addColumn('ssh_public_key', 'text')
    .addColumn('ssh_private_key', 'text')
    .addColumn('created_at', 'text', (column) => column.notNull())
    .execute()
  await sql`create index access_by_key on access (ssh_public_key) where ssh_public_key is not null`.execute(db)
  await db.schema
    .createTable('ssh_keys')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('account_id', 'text', (column) => column.notNull())
    .addColumn('name', 'text', (column) => column.notNull())
    .addColumn('public_key', 'text', (column) => column.notNull())
    .addColumn('created_at', 'text', (column) => column.notNull())
    .execute()
  await sql`create unique index ssh_keys_once on ssh_keys (account_id, public_key)`.execute(db)
  await sql`create index ssh_keys_by_key on ssh_keys (public_key)`.execute(db)
}

async function forks(db: Kysely<unknown>) {
  await db.schema.alterTable('jobs').addColumn('forked_from', 'text').execute()
  await db.schema.alterTable('jobs').addColumn('forked_with_memory', 'integer').execute()
}
