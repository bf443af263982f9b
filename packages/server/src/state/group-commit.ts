import { sql, type Transaction } from 'kysely'
import type { Logger } from 'pino'
import type { Database, DatabaseConfig } from './database.ts'
import type { Tables } from './schema.ts'
import { storageFaultOf } from './storage-fault.ts'

type Work<T> = (transaction: Transaction<Tables>) => Promise<T>

interface Entry {
  readonly work: Work<unknown>
  readonly flushed: boolean
  readonly resolve: (value: unknown) => void
  readonly reject: (error: unknown) => void
}

const largestGroup = 100

/**
 * Runs writes that arrive in the same turn of the event loop in one transaction: the flush to disk is what a commit costs, and ten submits then
 * pay it once. States: idle → gathering (first write, until the end of this turn) → committing → gathering or idle. A group that fails
 * is undone and its writes run one by one, so that one bad write fails alone.
 */
export class GroupCommit {
  readonly #database: Database
  readonly #kind: DatabaseConfig['kind']
  #waiting: Entry[] = []
  #active = false
  readonly #logger: Pick<Logger, 'error' | 'info'> | undefined
  /** That the disk is full was logged, and no write has worked since. */
  #isFull = false

  constructor(database: Database, kind: DatabaseConfig['kind'], logger?: Pick<Logger, 'error' | 'info'>) {
    this.#database = database
    this.#kind = kind
    this.#logger = logger
  }

  /**
   * Resolves with what `work` returned once it is committed. `work` may run twice, the first time undone; it must only touch the database.
   *
   * `flushed: false` is for what nobody was told yet: it survives the end of this process, but a power cut may take it (together with the sandboxes it speaks of), and it costs no flush.
   */
  write<T>(work: Work<T>, { flushed = true } = {}): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push({ work, flushed, resolve: resolve as (value: unknown) => void, reject })
      if (this.#active) return
      this.#active = true
      setImmediate(() => void this.#commitAll())
    })
  }

  async #commitAll(): Promise<void> {
    while (this.#waiting.length > 0) await this.#commit(this.#waiting.splice(0, largestGroup))
    this.#active = false
  }

  async #commit(group: readonly Entry[]): Promise<void> {
    try {
      const results = await this.#transact(group)
      if (this.#isFull) this.#logger?.info('the database can be written again')
      this.#isFull = false
      group.forEach((entry, index) => {
        entry.resolve(results[index])
      })
    } catch (error) {
      const storageFault = storageFaultOf(error)
      if (storageFault !== undefined && !this.#isFull) this.#logger?.error({ err: error }, `the database cannot be written: ${storageFault}`)
      this.#isFull ||= storageFault !== undefined
      const [only] = group
      if (group.length === 1 && only !== undefined) return only.reject(error)
      for (const entry of group) await this.#commit([entry])
    }
  }

  #transact(group: readonly Entry[]): Promise<unknown[]> {
    const runAll = async (transaction: Transaction<Tables>) => {
      const values: unknown[] = []
      for (const entry of group) values.push(await entry.work(transaction))
      return values
    }
    if (group.some(({ flushed }) => flushed)) return this.#database.transaction().execute(runAll)
    if (this.#kind === 'postgres') {
      return this.#database.transaction().execute(async (transaction) => {
        await sql`set local synchronous_commit to off`.execute(transaction)
        return await runAll(transaction)
      })
    }
    // SQLite takes the setting outside of a transaction only; there is one connection, and it is ours until the end of this.
    return this.#database.connection().execute(async (connection) => {
      await sql`pragma synchronous = normal`.execute(connection)
      try {
        return await connection.transaction().execute(runAll)
      } finally {
        await sql`pragma synchronous = full`.execute(connection)
      }
    })
  }
}
