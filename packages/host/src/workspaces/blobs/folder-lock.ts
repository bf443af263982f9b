import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as delay } from 'node:timers/promises'
import { MagsError } from '@mags/protocol'

// SQLITE_BUSY and SQLITE_FULL, https://www.sqlite.org/rescode.html
const busy = 5
const full = 13

/**
 * Excludes other processes of this machine while a few system calls are made. The lock is SQLite's (POSIX record locks, which also several connections of one process respect): the kernel frees it
 * when its holder dies, so nothing stale is ever left, and it does not depend on process numbers or network namespaces. Nothing is written to the file. 0.06 ms.
 */
export class FolderLock {
  readonly #database: DatabaseSync
  readonly #folder: string

  constructor(folder: string) {
    this.#folder = folder
    this.#database = new DatabaseSync(join(folder, 'lock'), { timeout: 0 })
  }

  /** Runs `critical`, which must not wait for anything. */
  async hold<T>(critical: () => T): Promise<T> {
    const patienceEndsAt = performance.now() + 30_000
    while (!this.#tryLock()) {
      // The other side holds it for microseconds, unless it was stopped in between.
      if (performance.now() > patienceEndsAt)
        throw new MagsError(
          'object_store_unavailable',
          `Another process holds the lock of ${this.#folder} for over 30 s; see which one uses the folder (fuser ${this.#folder}/lock).`,
        )
      await delay(1 + Math.random() * 5)
    }
    try {
      return critical()
    } finally {
      this.#database.exec('ROLLBACK')
    }
  }

  #tryLock(): boolean {
    try {
      this.#database.exec('BEGIN IMMEDIATE')
      return true
    } catch (error) {
      const { errcode } = error as { errcode?: number }
      if (errcode === busy) return false
      // Even a lock wants a page of the file system: what it says is what a write would say.
      if (errcode === full) throw Object.assign(new Error('the disk is full', { cause: error }), { code: 'ENOSPC' })
      throw error
    }
  }

  close(): void {
    this.#database.close()
  }
}
