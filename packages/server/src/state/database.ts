import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { MagsError } from '@mags/protocol'
import { Kysely, PostgresDialect, SqliteDialect } from 'kysely'
import { Migrator } from 'kysely/migration'
import { migrationsFor } from './migrations.ts'
import type { Tables } from './schema.ts'
import { openSqliteDatabase } from './sqlite-database.ts'

/** SQLite in one file, or a PostgreSQL server (a `postgres://` address; a socket folder as `?host=/run/postgresql`). */
export type DatabaseConfig = { readonly kind: 'sqlite'; readonly path: string } | { readonly kind: 'postgres'; readonly url: string }

export type Database = Kysely<Tables>

const bigintType = 20

/** Opens the database and brings its tables up to date. Rejects with MagsError('internal') that says which database and why. */
export async function openDatabase(config: DatabaseConfig): Promise<Database> {
  let database: Database | undefined
  try {
    database = await connectDatabase(config)
    const migrator = new Migrator({ db: database, provider: { getMigrations: async () => migrationsFor(config.kind) } })
    const { error } = await migrator.migrateToLatest()
    if (error !== undefined) throw error
    return database
  } catch (error) {
    await database?.destroy().catch(() => undefined)
    const where = config.kind === 'sqlite' ? `the database ${config.path}` : `the PostgreSQL database ${withoutPassword(config.url)}`
    throw new MagsError('internal', `${where} could not be opened: ${error instanceof Error ? error.message : String(error)}`, { cause: error })
  }
}

/** A connection to the database as it is. */
export async function connectDatabase(config: DatabaseConfig): Promise<Database> {
  if (config.kind === 'sqlite') {
    if (config.path !== ':memory:') mkdirSync(dirname(config.path), { recursive: true, mode: 0o700 })
    return new Kysely<Tables>({ dialect: new SqliteDialect({ database: openSqliteDatabase(config.path) }) })
  }
  // Only loaded where it is used, to keep it off every other start.
  const { Pool, types } = await import('pg')
  const pool = new Pool({
    connectionString: config.url,
    max: 8,
    connectionTimeoutMillis: 10_000,
    // Counts and sequence numbers are far below 2^53; the default would give them as strings.
    types: {
      getTypeParser: (id: number, format?: 'text' | 'binary') =>
        id === bigintType ? Number : format === 'binary' ? types.getTypeParser(id, 'binary') : types.getTypeParser(id, 'text'),
    },
  })
  // A connection that dies while idle is replaced by the next query; without a listener it would end the process.
  pool.on('error', () => undefined)
  return new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) })
}

function withoutPassword(url: string): string {
  return url.replace(/\/\/([^/@:]*):[^@]*@/, '//$1:…@')
}
