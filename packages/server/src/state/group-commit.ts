import type { Transaction } from 'kysely'
import type { Database } from './database.ts'
import type { Tables } from './schema.ts'

type Work<T> = (transaction: Transaction<Tables>) => Promise<T>

interface Entry {
  readonly work: Work<unknown>
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
  #waiting: Entry[] = []
  #active = false

  constructor(database: Database) {
    this.#database = database
  }

  /** Resolves with what `work` returned once it is committed. `work` may run twice, the first time undone; it must only touch the database. */
  write<T>(work: Work<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push({ work, resolve: resolve as (value: unknown) => void, reject })
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
      const results = await this.#database.transaction().execute(async (transaction) => {
        const values: unknown[] = []
        for (const entry of group) values.push(await entry.work(transaction))
        return values
      })
      group.forEach((entry, index) => {
        entry.resolve(results[index])
      })
    } catch (error) {
      const [only] = group
      if (group.length === 1 && only !== undefined) return only.reject(error)
      for (const entry of group) await this.#commit([entry])
    }
  }
}
