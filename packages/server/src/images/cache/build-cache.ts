import type { HostApi } from '@mags/protocol'
import type { Logger } from 'pino'
import { timestamp } from '../../state/timestamp.ts'
import { CacheOfBuild } from './cache-of-build.ts'
import type { BuildCacheStore } from './store.ts'

export interface BuildCacheDeps {
  readonly cacheStore: BuildCacheStore
  readonly host: HostApi
  readonly clock: () => number
  readonly logger: Logger
  /** Of all that is kept; 0: nothing is. */
  readonly maxBytes: number
}

const unusedMs = 30 * 24 * 3600 * 1000
/** `settle` takes a storage over from who wrote it. */
export const firstFence = 1

/**
 * The files that instructions of Dockerfiles led to: versions of storages of its own, which are no workspaces of anybody. Each stage that runs something writes one storage.
 *
 *     written ──its stage is over──▶ kept ──too much, unused, unneeded──▶ removed ──its data are gone──▶ (no row)
 *        └──a failure, a crash: what was not saved is dropped──▲ or removed, when nothing was
 */
export class BuildCache {
  readonly deps: BuildCacheDeps
  /** Who reads or writes what; none of it is taken away. */
  readonly #uses = new Map<string, number>()
  #tending: Promise<void> = Promise.resolve()
  #closed = false

  constructor(deps: BuildCacheDeps) {
    this.deps = deps
  }

  /** For one build; undefined when nothing is kept on this server. `fresh`: nothing of before is used. */
  open(accountId: string, { fresh }: { readonly fresh: boolean }): CacheOfBuild | undefined {
    return this.deps.maxBytes === 0 || this.#closed ? undefined : new CacheOfBuild(this, accountId, fresh)
  }

  /** Keeps a storage until the returned function is called. */
  use(storageId: string): () => void {
    this.#uses.set(storageId, (this.#uses.get(storageId) ?? 0) + 1)
    let used = true
    return () => {
      if (!used) return
      used = false
      const others = (this.#uses.get(storageId) ?? 1) - 1
      if (others > 0) this.#uses.set(storageId, others)
      else this.#uses.delete(storageId)
    }
  }

  /** Drops what a stage left that was not saved, and the storage when nothing else is in it. It is written no more. */
  async settle(storageId: string): Promise<void> {
    const { cacheStore, host } = this.deps
    const version = await cacheStore.lastVersion(storageId)
    if (version === undefined) return await this.#remove(storageId)
    try {
      await host.workspaces.restore({ storageId, fence: firstFence + 1 }, version)
      await cacheStore.close(storageId)
    } catch (error) {
      this.deps.logger.warn({ err: error, storageId }, 'what a build left could not be put in order; its steps are forgotten')
      await this.#remove(storageId)
    }
  }

  /** Takes away what a crash left, what is too much, and what nobody used for long. Never rejects; what fails is done by the next call. */
  tend(): Promise<void> {
    this.#tending = this.#tending
      .then(() => this.#tend())
      .catch((error: unknown) => this.deps.logger.warn({ err: error }, 'the cache of image builds could not be tended'))
    return this.#tending
  }

  /** Takes all of an account away that no build uses. Resolves with its size. */
  async prune(accountId: string): Promise<number> {
    let bytes = 0
    for (const kept of await this.deps.cacheStore.listKept()) if (kept.accountId === accountId && (await this.#evict(kept.storageId))) bytes += kept.sizeBytes
    return bytes
  }

  /** Nothing new is begun; settles once what goes on is over. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#tending
  }

  async #tend(): Promise<void> {
    const { cacheStore, clock, maxBytes } = this.deps
    for (const storageId of await cacheStore.listOpen()) if (!this.#closed && !this.#uses.has(storageId)) await this.settle(storageId)
    for (const storageId of await cacheStore.listRemoved()) if (!this.#closed) await this.#removeData(storageId)
    const kept = await cacheStore.listKept()
    const unusedSince = timestamp(clock() - unusedMs)
    let total = kept.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
    for (const { storageId, sizeBytes, steps, usedAt } of kept) {
      if (this.#closed) return
      if (steps > 0 && usedAt >= unusedSince && total <= maxBytes && maxBytes > 0) continue
      if (await this.#evict(storageId)) total -= sizeBytes
    }
  }

  async #evict(storageId: string): Promise<boolean> {
    const { cacheStore, clock } = this.deps
    if (!(await cacheStore.markRemoved(storageId, timestamp(clock()), () => this.#uses.has(storageId)))) return false
    await this.#removeData(storageId)
    return true
  }

  async #remove(storageId: string): Promise<void> {
    const { cacheStore, clock } = this.deps
    await cacheStore.markRemoved(storageId, timestamp(clock()), () => false)
    await this.#removeData(storageId)
  }

  async #removeData(storageId: string): Promise<void> {
    const { cacheStore, host, logger } = this.deps
    try {
      await host.workspaces.remove(storageId)
      await cacheStore.forget(storageId)
    } catch (error) {
      logger.warn({ err: error, storageId }, 'what a build kept could not be taken away; trying again later')
    }
  }
}
