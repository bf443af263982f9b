import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite'
import type { SqliteDatabase, SqliteStatement } from 'kysely'

const cachedStatements = 200

/**
 * Node's own SQLite in the shape Kysely's dialect wants. Prepared statements are kept by their text: preparing costs several times what running
 * one does. A statement is only used for one call at a time, so sharing it is safe.
 */
export function openSqliteDatabase(path: string): SqliteDatabase {
  const database = new DatabaseSync(path)
  try {
    // FULL: what was acknowledged survives a power cut, at 0.2 ms a transaction.
    database.exec('pragma journal_mode = wal; pragma synchronous = full; pragma busy_timeout = 5000; pragma foreign_keys = on')
  } catch (error) {
    database.close()
    throw error
  }
  const cache = new Map<string, SqliteStatement>()
  return {
    close: () => database.close(),
    prepare: (text) => {
      const known = cache.get(text)
      if (known) return known
      const statement = text === 'rollback' ? rollbackOf(database) : adapt(database.prepare(text))
      if (cache.size >= cachedStatements) cache.delete(cache.keys().next().value ?? '')
      cache.set(text, statement)
      return statement
    },
  }
}

/** A full disk may have rolled the transaction back already (sqlite.org/lang_transaction.html, 3.1); once more would fail, and hide why. */
function rollbackOf(database: DatabaseSync): SqliteStatement {
  const statement = adapt(database.prepare('rollback'))
  return { ...statement, run: (parameters) => (database.isTransaction ? statement.run(parameters) : { changes: 0, lastInsertRowid: 0 }) }
}

function adapt(statement: StatementSync): SqliteStatement {
  return {
    reader: statement.columns().length > 0,
    all: (parameters) => statement.all(...(parameters as SQLInputValue[])),
    run: (parameters) => statement.run(...(parameters as SQLInputValue[])),
    iterate: (parameters) => statement.iterate(...(parameters as SQLInputValue[])),
  }
}
