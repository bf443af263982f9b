import { createHash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { MagsError } from '@mags/protocol'
import { checkKey, checkPrefix } from '../blob-key.ts'
import { type Blob, type BlobInfo, type BlobStore, maxStoredBytes, type PutCondition } from '../blob-store.ts'

export interface BlobOperation {
  readonly kind: 'get' | 'put' | 'delete' | 'list'
  /** The key, or for lists the prefix. */
  readonly key: string
}

/**
 * Objects in memory, for tests, with faults on request. Several stores may share one `objects` map and so play several machines at one bucket. Etags are of the contents, as S3's.
 */
export class MemoryBlobStore implements BlobStore {
  readonly description = 'memory'
  readonly objects: Map<string, { bytes: Buffer; modifiedAt: Date }>
  readonly operations: BlobOperation[] = []
  /** Before an operation takes effect; a rejection is its failure. */
  before: ((operation: BlobOperation) => Promise<void> | void) | undefined
  /** After it took effect, before the caller hears of it; a rejection is a lost answer. */
  after: ((operation: BlobOperation) => Promise<void> | void) | undefined
  readonly #now: () => number

  constructor(options: { readonly objects?: MemoryBlobStore['objects']; readonly now?: () => number } = {}) {
    this.objects = options.objects ?? new Map()
    this.#now = options.now ?? Date.now
  }

  /** The next `count` puts fail and change nothing. */
  failPuts(count: number): void {
    this.before = nextPuts(count, () => (this.before = undefined))
  }

  /** The next `count` puts take effect, but their callers are told that the store does not answer. */
  loseAnswers(count: number): void {
    this.after = nextPuts(count, () => (this.after = undefined))
  }

  /** Every operation takes so long from now on. */
  delay(ms: number): void {
    this.before = () => delay(ms)
  }

  async get(key: string, abort?: AbortSignal): Promise<Blob | undefined> {
    checkKey(key)
    return this.#run({ kind: 'get', key }, () => {
      abort?.throwIfAborted()
      const found = this.objects.get(key)
      return found && { bytes: Buffer.from(found.bytes), etag: etagOf(found.bytes) }
    })
  }

  async put(key: string, bytes: Uint8Array, condition?: PutCondition): Promise<{ readonly etag: string } | undefined> {
    checkKey(key)
    if (bytes.length > maxStoredBytes) throw new MagsError('object_store_refused', `${key} is over 64 MiB.`)
    const copy = Buffer.from(bytes)
    return this.#run({ kind: 'put', key }, () => {
      const found = this.objects.get(key)
      if (condition?.kind === 'absent' && found) return undefined
      if (condition?.kind === 'unchanged' && (!found || etagOf(found.bytes) !== condition.etag)) return undefined
      this.objects.set(key, { bytes: copy, modifiedAt: new Date(this.#now()) })
      return { etag: etagOf(copy) }
    })
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) await this.#run({ kind: 'delete', key: checkKey(key) }, () => this.objects.delete(key))
  }

  async *list(prefix: string): AsyncIterable<BlobInfo> {
    checkPrefix(prefix)
    const found = await this.#run({ kind: 'list', key: prefix }, () =>
      [...this.objects].filter(([key]) => key.startsWith(prefix)).map(([key, { bytes, modifiedAt }]) => ({ key, sizeBytes: bytes.length, modifiedAt })),
    )
    yield* found.sort((a, b) => (a.key < b.key ? -1 : 1))
  }

  close(): void {}

  async #run<T>(operation: BlobOperation, effect: () => T): Promise<T> {
    this.operations.push(operation)
    await this.before?.(operation)
    const result = effect()
    await this.after?.(operation)
    return result
  }
}

function nextPuts(count: number, done: () => void): (operation: BlobOperation) => void {
  let left = count
  return ({ kind }) => {
    if (kind !== 'put' || left === 0) return
    left -= 1
    if (left === 0) done()
    throw new MagsError('object_store_unavailable', 'The store does not answer (a test wants it so).')
  }
}

function etagOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, 32)
}
