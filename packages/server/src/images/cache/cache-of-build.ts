import { timestamp } from '../../state/timestamp.ts'
import { newStorageId } from '../../workspaces/workspace.ts'
import type { BuildCache } from './build-cache.ts'
import { StageStorage } from './stage-storage.ts'
import type { SavedState } from './store.ts'

/** Databases take some ten thousand values in a statement. */
const keysAtOnce = 500

/** What one build of an account finds in the cache and leaves there. All it uses stays until it is over. */
export class CacheOfBuild implements AsyncDisposable {
  readonly accountId: string
  readonly #cache: BuildCache
  readonly #fresh: boolean
  readonly #letGo: (() => void)[] = []

  constructor(cache: BuildCache, accountId: string, fresh: boolean) {
    this.#cache = cache
    this.accountId = accountId
    this.#fresh = fresh
  }

  /** The last of these keys that there are files of; undefined ones there are none of. */
  async find(keys: readonly (string | undefined)[]): Promise<{ readonly index: number; readonly saved: SavedState } | undefined> {
    if (this.#fresh) return undefined
    const { cacheStore, clock } = this.#cache.deps
    for (let end = keys.length; end > 0; end -= keysAtOnce) {
      const wanted = keys.slice(Math.max(0, end - keysAtOnce), end).filter((key) => key !== undefined)
      const found = wanted.length === 0 ? [] : await cacheStore.find(this.accountId, wanted)
      const byIndex = found.map(({ key, storageId, version }) => ({ index: keys.lastIndexOf(key), saved: { storageId, version } }))
      for (const hit of byIndex.sort((a, b) => b.index - a.index)) {
        const letGo = this.#cache.use(hit.saved.storageId)
        this.#letGo.push(letGo)
        // In this order: what was said to be used before it was touched is not taken away any more.
        if (await cacheStore.touch(hit.saved.storageId, timestamp(clock()))) return hit
      }
    }
    return undefined
  }

  /** The digest of the image that was made of the same before. */
  async findImage(key: string): Promise<string | undefined> {
    return this.#fresh ? undefined : await this.#cache.deps.cacheStore.findImage(this.accountId, key)
  }

  /** Notes the image that was made of files of the cache. */
  async keepImage(key: string, files: SavedState, digest: string): Promise<void> {
    const { cacheStore, clock } = this.#cache.deps
    await cacheStore.keepImage({ ...files, key, accountId: this.accountId, digest }, timestamp(clock()))
  }

  /** A new storage for a stage to write. */
  async begin(say: (words: string) => void): Promise<StageStorage> {
    const { cacheStore, clock } = this.#cache.deps
    const storageId = newStorageId()
    this.#letGo.push(this.#cache.use(storageId))
    await cacheStore.begin(storageId, this.accountId, timestamp(clock()))
    return new StageStorage(this.#cache, { storageId, accountId: this.accountId, say })
  }

  /** What was found cannot be read: it is not found again. */
  async forget({ storageId }: SavedState): Promise<void> {
    await this.#cache.deps.cacheStore.forgetSteps(storageId)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const letGo of this.#letGo) letGo()
    void this.#cache.tend()
  }
}
