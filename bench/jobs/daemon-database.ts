import { join } from 'node:path'
import { pino } from 'pino'
import { connectDatabase, type Database } from '../../packages/server/src/state/database.ts'
import { TokenStore } from '../../packages/server/src/tokens/store.ts'
import { Tokens } from '../../packages/server/src/tokens/tokens.ts'
import type { TestDaemon } from '../../tests/kit/daemon.ts'

/** The database of a daemon beside it, for what no route does. */
export async function openDatabaseOf(daemon: TestDaemon): Promise<Database & AsyncDisposable> {
  const database = await connectDatabase({ kind: 'sqlite', path: join(daemon.dataDir, 'mags.db') })
  return Object.assign(database, { [Symbol.asyncDispose]: () => database.destroy() })
}

/** The token of an account that was not there before. */
export async function addAccount(database: Database, accountId: string): Promise<string> {
  return await new Tokens({ store: new TokenStore(database), clock: Date.now, logger: pino({ level: 'silent' }) }).create('bench', accountId)
}
