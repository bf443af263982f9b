import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { openSqliteDatabase } from './sqlite-database.ts'

it('lets the reason through when a transaction is rolled back that SQLite has rolled back already', () => {
  const folder = mkdtempSync(join(tmpdir(), 'mags-sqlite-'))
  try {
    const database = openSqliteDatabase(join(folder, 'x.db'))
    const run = (text: string) => database.prepare(text).run([])
    run('create table t (v text unique on conflict rollback)')
    run('begin')
    run("insert into t values ('a')")
    expect(() => run("insert into t values ('a')")).toThrow('UNIQUE')
    expect(() => run('rollback')).not.toThrow()
    run('begin')
    run("insert into t values ('b')")
    run('rollback')
    expect(database.prepare('select v from t').all([])).toEqual([])
    database.close()
  } finally {
    rmSync(folder, { recursive: true })
  }
})
