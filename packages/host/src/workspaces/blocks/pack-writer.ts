import { createHash, type Hash } from 'node:crypto'
import type { PackId, PackStore } from '../repository/repository.ts'

const packBytes = 8 * 1024 * 1024
const nothing = Buffer.alloc(0)

/** Where something lies whose pack may not be full yet; `id` is known once that pack is sealed. */
export interface OpenPack {
  id: PackId | undefined
}

/**
 * Joins blocks to packs and puts those through the store, a few at a time.
 *
 *     filling ──append over 8 MiB, seal──▶ filling (the pack before goes to the store)
 *     any ──a put fails, stop──▶ failed: nothing is put any more, `room`, `calm` and `finish` reject with that
 */
export class PackWriter {
  readonly #store: PackStore
  readonly #parallelPuts: number
  readonly #puts = new Set<Promise<void>>()
  /** Used over and over: fresh memory costs more than what is done with it. */
  readonly #spare: Buffer[] = []
  #bytes: Buffer = nothing
  #length = 0
  #hash: Hash = createHash('sha256')
  #pack: OpenPack = { id: undefined }
  #failure: { readonly error: unknown } | undefined
  #waitingBytes = 0
  /** What went over the wire so far. */
  uploadedBytes = 0

  constructor(store: PackStore, parallelPuts = 4) {
    this.#store = store
    this.#parallelPuts = parallelPuts
  }

  /** The parts are copied. */
  append(parts: readonly Uint8Array[]): { readonly pack: OpenPack; readonly offset: number } {
    const lengthBytes = parts.reduce((sum, part) => sum + part.length, 0)
    if (this.#length + lengthBytes > this.#bytes.length) {
      this.seal()
      this.#bytes = lengthBytes > packBytes ? Buffer.allocUnsafeSlow(lengthBytes) : (this.#spare.pop() ?? Buffer.allocUnsafeSlow(packBytes))
    }
    const place = { pack: this.#pack, offset: this.#length }
    for (const part of parts) {
      this.#bytes.set(part, this.#length)
      this.#hash.update(part)
      this.#length += part.length
    }
    this.#waitingBytes += lengthBytes
    return place
  }

  /** Ends the pack that is being filled and begins to store it. */
  seal(): void {
    if (this.#length === 0) return
    const buffer = this.#bytes
    const bytes = buffer.subarray(0, this.#length)
    const id = this.#hash.digest('hex')
    this.#pack.id = id
    this.#bytes = nothing
    this.#length = 0
    this.#hash = createHash('sha256')
    this.#pack = { id: undefined }
    const put = this.#put(bytes, id).finally(() => {
      this.#waitingBytes -= bytes.length
      if (buffer.length === packBytes) this.#spare.push(buffer)
      this.#puts.delete(put)
    })
    this.#puts.add(put)
  }

  /** Settles once another pack may be filled. */
  async room(): Promise<void> {
    while (this.#puts.size >= this.#parallelPuts && this.#failure === undefined) await Promise.race(this.#puts)
    this.#throwFailure()
  }

  /** Settles once at most so many bytes wait for the store. */
  async calm(bytes: number): Promise<void> {
    while (this.#waitingBytes > bytes + this.#length && this.#puts.size > 0 && this.#failure === undefined) await Promise.race(this.#puts)
    this.#throwFailure()
  }

  /** Settles once everything is stored. */
  async finish(): Promise<void> {
    this.seal()
    while (this.#puts.size > 0) await Promise.race(this.#puts)
    this.#throwFailure()
  }

  /** Stores nothing any more; settles once nothing is under way. */
  async stop(): Promise<void> {
    this.#failure ??= { error: new Error('the packs are not written any more') }
    while (this.#puts.size > 0) await Promise.race(this.#puts)
  }

  /** Never rejects; the failure is kept for `room` and `finish`. */
  async #put(bytes: Buffer, id: PackId): Promise<void> {
    try {
      if (this.#failure !== undefined) return
      const stored = await this.#store.put(bytes)
      this.uploadedBytes += stored.uploadedBytes
      if (stored.id !== id) throw new Error(`the pack ${id} was stored as ${stored.id}`)
    } catch (error) {
      this.#failure ??= { error }
    }
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error
  }
}
