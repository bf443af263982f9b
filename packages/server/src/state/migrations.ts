import { type Kysely, sql } from 'kysely'
import type { Migration } from 'kysely/migration'
import type { DatabaseConfig } from './database.ts'

/** Every change of the tables, in order; a migration that was released is never edited. */
export function migrationsFor(kind: DatabaseConfig['kind']): Record<string, Migration> {
  return { '0001-jobs-and-tokens': { up: (db) => jobsAndTokens(db, kind) } }
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
