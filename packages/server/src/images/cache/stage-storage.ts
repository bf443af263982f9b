import { MagsError, type RunningSandbox, type WorkspaceHold } from '@mags/protocol'
import { unlessAborted } from '../../jobs/sleep/sandbox-use.ts'
import { timestamp } from '../../state/timestamp.ts'
import { type BuildCache, firstFence } from './build-cache.ts'
import type { SavedState } from './store.ts'

/** The object store names 200 versions of a storage at most; older ones go. */
const mostVersions = 190

/**
 * The storage that a stage writes.
 *
 *     saving ──a save failed, too large──▶ given up
 *        └──────────────close──────────────┴──────▶ closed
 */
export class StageStorage {
  readonly hold: WorkspaceHold
  readonly #cache: BuildCache
  readonly #accountId: string
  readonly #say: (words: string) => void
  #largestBytes = 0
  #uploadedBytes = 0
  #givenUp = false

  constructor(cache: BuildCache, { storageId, accountId, say }: { storageId: string; accountId: string; say: (words: string) => void }) {
    this.#cache = cache
    this.hold = { storageId, fence: firstFence }
    this.#accountId = accountId
    this.#say = say
  }

  /** Keeps the files of a sandbox as they are now. Undefined when that is not to be: a build goes on without. Rejects with the reason of `abort` only. */
  async save(sandbox: RunningSandbox, key: string, abort: AbortSignal): Promise<SavedState | undefined> {
    if (this.#givenUp) return undefined
    const { cacheStore, clock, logger, maxBytes } = this.#cache.deps
    const { storageId } = this.hold
    try {
      abort.throwIfAborted()
      const { version, changed } = await unlessAborted(sandbox.saveWorkspace({ final: false }), abort)
      this.#largestBytes = Math.max(this.#largestBytes, version.sizeBytes)
      if (changed) this.#uploadedBytes += version.uploadedBytes
      const sizeBytes = Math.max(this.#largestBytes, this.#uploadedBytes)
      if (sizeBytes > maxBytes || version.version > mostVersions) {
        this.#givenUp = true
        this.#say(`the cache keeps nothing from here on: ${sizeBytes > maxBytes ? 'it is not large enough' : 'the stage has too many steps'}`)
        return undefined
      }
      const saved = { storageId, version: version.version }
      await cacheStore.keepStep({ ...saved, key, accountId: this.#accountId, sizeBytes }, timestamp(clock()))
      return saved
    } catch (error) {
      abort.throwIfAborted()
      this.#givenUp = true
      logger.warn({ err: error, storageId }, 'a step of a build could not be kept')
      this.#say(`the cache keeps nothing from here on: ${error instanceof MagsError ? error.message : 'a fault of the server, whose log has more'}`)
      return undefined
    }
  }

  /** Ends every program of the sandbox, and has others begin at once with what is there. Nothing can be done in it afterwards. Never rejects. */
  async finish(sandbox: RunningSandbox): Promise<boolean> {
    if (this.#givenUp) return false
    return await sandbox.saveWorkspace({ final: true }).then(
      () => true,
      (error: unknown) => {
        this.#cache.deps.logger.warn({ err: error, storageId: this.hold.storageId }, 'a stage of a build could not be saved at its end')
        return false
      },
    )
  }

  /** Once its sandbox is gone. `finished`: nothing is left that was not saved. */
  async close(finished: boolean): Promise<void> {
    const { cacheStore, logger } = this.#cache.deps
    const { storageId } = this.hold
    try {
      if (finished && (await cacheStore.lastVersion(storageId)) !== undefined) await cacheStore.close(storageId)
      else await this.#cache.settle(storageId)
    } catch (error) {
      logger.warn({ err: error, storageId }, 'the end of a stage could not be stored')
    }
  }
}
