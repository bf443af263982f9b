import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll } from 'vitest'
import type { DatabaseConfig } from '../../packages/server/src/state/database.ts'
import { startPostgres, type TestPostgres, whyNoPostgres } from './postgres.ts'

export type DatabaseKind = DatabaseConfig['kind']
export const databaseKinds = ['sqlite', 'postgres'] as const satisfies readonly DatabaseKind[]

/** Whether there is no such database on this machine. */
export const lacksDatabase = (kind: DatabaseKind) => kind === 'postgres' && whyNoPostgres() !== undefined

/** For a `describe`: what it returns makes an empty database that goes after its tests; one of sqlite is in a folder that is not there yet. */
export function useTestDatabases(kind: DatabaseKind): () => DatabaseConfig {
  let postgres: TestPostgres | undefined
  let directory = ''
  let count = 0
  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'mags-databases-'))
    if (kind === 'postgres') postgres = await startPostgres()
  })
  afterAll(async () => {
    await postgres?.[Symbol.asyncDispose]()
    rmSync(directory, { recursive: true, force: true })
  })
  return () => (postgres ? { kind: 'postgres', url: postgres.createDatabase() } : { kind: 'sqlite', path: join(directory, 'new', `${++count}.db`) })
}
