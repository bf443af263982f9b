import { type Kysely, sql } from 'kysely'
import type { DatabaseConfig } from './database.ts'

/** Tables of the cache of image builds; rules as in schema.ts. */

/** Files that a stage of a build led to: a storage of versions, which no workspace has. */
export interface BuildStoragesTable {
  storage_id: string
  account_id: string
  /** A stage writes it, or did when a server ended. */
  open: number
  size_bytes: number
  created_at: string
  used_at: string
  /** Nothing begins with it any more; the row stays until its data are gone. */
  removed_at: string | null
}

/** The files after an instruction, or the image that was made of them. */
export interface BuildStepsTable {
  /** A digest of all they depend on. */
  key: string
  account_id: string
  storage_id: string
  version: number
  image_digest: string | null
  created_at: string
}

export async function buildCache(db: Kysely<unknown>, kind: DatabaseConfig['kind']) {
  // SQLite's integer has 64 bits, PostgreSQL's 32.
  const large = kind === 'sqlite' ? sql`integer` : sql`bigint`
  await db.schema
    .createTable('build_storages')
    .addColumn('storage_id', 'text', (column) => column.primaryKey())
    .addColumn('account_id', 'text', (column) => column.notNull())
    .addColumn('open', 'integer', (column) => column.notNull())
    .addColumn('size_bytes', large, (column) => column.notNull())
    .addColumn('created_at', 'text', (column) => column.notNull())
    .addColumn('used_at', 'text', (column) => column.notNull())
    .addColumn('removed_at', 'text')
    .execute()
  await db.schema
    .createTable('build_steps')
    .addColumn('key', 'text', (column) => column.primaryKey())
    .addColumn('account_id', 'text', (column) => column.notNull())
    .addColumn('storage_id', 'text', (column) => column.notNull())
    .addColumn('version', 'integer', (column) => column.notNull())
    .addColumn('image_digest', 'text')
    .addColumn('created_at', 'text', (column) => column.notNull())
    .execute()
  await db.schema.createIndex('build_steps_by_storage').on('build_steps').columns(['storage_id', 'version']).execute()
}
