import { MagsError } from '@mags/protocol'
import type { Blob, BlobInfo, BlobStore, PutCondition } from './blob-store.ts'

/**
 * A store that may not answer yet when the server starts: jobs without a workspace do not need it. It is opened by the first call that finds it awake.
 *
 *     closed ──open──▶ opening ──▶ open
 *                         └──unavailable──▶ closed (the next call tries again)
 */
export class EventualBlobStore implements BlobStore {
  readonly #open: () => Promise<BlobStore>
  readonly #description: string
  #store: BlobStore | undefined
  #opening: Promise<BlobStore> | undefined

  private constructor(open: () => Promise<BlobStore>, description: string) {
    this.#open = open
    this.#description = description
  }

  /** Rejects when the store refuses us, which no waiting mends; `onUnavailable` hears when it does not answer yet. */
  static async open(open: () => Promise<BlobStore>, description: string, onUnavailable: (error: unknown) => void): Promise<EventualBlobStore> {
    const eventual = new EventualBlobStore(open, description)
    try {
      await eventual.#opened()
    } catch (error) {
      if (!(error instanceof MagsError) || error.code !== 'object_store_unavailable') throw error
      onUnavailable(error)
    }
    return eventual
  }

  get description() {
    return this.#store?.description ?? this.#description
  }

  async get(key: string, abort?: AbortSignal): Promise<Blob | undefined> {
    return (await this.#opened()).get(key, abort)
  }

  async put(key: string, bytes: Uint8Array, condition?: PutCondition): Promise<{ readonly etag: string } | undefined> {
    return (await this.#opened()).put(key, bytes, condition)
  }

  async delete(keys: readonly string[]): Promise<void> {
    await (await this.#opened()).delete(keys)
  }

  async *list(prefix: string): AsyncIterable<BlobInfo> {
    yield* (await this.#opened()).list(prefix)
  }

  close() {
    this.#store?.close()
  }

  #opened(): Promise<BlobStore> {
    this.#opening ??= this.#open().then(
      (store) => {
        this.#store = store
        return store
      },
      (error: unknown) => {
        this.#opening = undefined
        throw error
      },
    )
    return this.#opening
  }
}
