import { hash } from 'node:crypto'
import { MagsError } from '@mags/protocol'
import type { BlobStore } from '../blobs/blob-store.ts'
import { readCollectorState } from './collector-state.ts'
import { inParallel } from './in-parallel.ts'
import { objectNames, parsePackKey } from './object-names.ts'
import type { PackId, PackStore } from './repository.ts'
import { damagedObject } from './stored-document.ts'

/** A copy of a pack. It was there and not condemned at `aliveAtMs`, and so is there for half of the grace time from then on; 0 when only its name is known. */
interface KnownPack {
  readonly copy: string
  readonly aliveAtMs: number
}

/** What is condemned, as it was at a time. */
export interface Condemned {
  readonly keys: ReadonlySet<string>
  readonly atMs: number
}

const maxKnownPacks = 200_000
const parallelRequests = 8

export interface PackStoreOptions {
  readonly graceMs: number
  readonly now: () => number
}

/** Packs as objects. The same bytes may lie there in several copies with names of their own: a writer never relies on one that a collector has condemned. */
export class ObjectPackStore implements PackStore {
  readonly #store: BlobStore
  readonly #options: PackStoreOptions
  readonly #known = new Map<PackId, KnownPack>()
  readonly #puts = new Map<PackId, Promise<{ readonly id: PackId; readonly uploadedBytes: number }>>()
  #condemned: { readonly atMs: number; readonly list: Promise<Condemned> } | undefined

  constructor(store: BlobStore, options: PackStoreOptions) {
    this.#store = store
    this.#options = options
  }

  put(bytes: Uint8Array): Promise<{ readonly id: PackId; readonly uploadedBytes: number }> {
    const id = hash('sha256', bytes, 'hex')
    const running = this.#puts.get(id)
    if (running) return running.then(() => ({ id, uploadedBytes: 0 }))
    const put = this.#put(id, bytes).finally(() => this.#puts.delete(id))
    this.#puts.set(id, put)
    return put
  }

  async get(id: PackId, abort?: AbortSignal): Promise<Buffer> {
    const tried = new Set<string>()
    const known = this.#known.get(id)
    const read = async (copy: string) => {
      tried.add(copy)
      const found = await this.#store.get(objectNames.pack(id, copy), abort).catch((error: unknown) => {
        if (!(error instanceof MagsError && error.code === 'workspace_damaged')) throw error
      })
      return found && hash('sha256', found.bytes, 'hex') === id ? found.bytes : undefined
    }
    const first = known && (await read(known.copy))
    if (first) return first
    const copies = await this.#copies(id)
    for (const { copy } of copies) {
      const bytes = tried.has(copy) ? undefined : await read(copy)
      if (!bytes) continue
      this.#remember(id, { copy, aliveAtMs: 0 })
      return bytes
    }
    const name = copies[0]?.key ?? objectNames.packCopies(id).slice(0, -1)
    throw damagedObject(name, copies.length === 0 ? 'the pack is missing' : 'the pack is not what was written')
  }

  /** The copies a version names; alive when the version was in its head at `condemned.atMs` or later. */
  learn(packs: readonly PackId[], copies: readonly string[], condemned: Condemned): void {
    for (const [index, id] of packs.entries()) {
      const copy = copies[index]
      if (!copy) continue
      const before = this.#known.get(id)
      const aliveAtMs = condemned.keys.has(objectNames.pack(id, copy)) ? 0 : condemned.atMs
      if (!before || before.aliveAtMs <= aliveAtMs) this.#remember(id, { copy, aliveAtMs })
    }
  }

  /** Names of the copies for a manifest. */
  copiesOf(packs: readonly PackId[]): string[] {
    return packs.map((id) => this.#known.get(id)?.copy ?? '')
  }

  /**
   * Makes sure that packs a version is about to refer to stay at least a quarter of the grace time; the version must be committed within it. Settles with the time they were last known to be there.
   * Rejects with MagsError('workspace_damaged') when one is missing.
   */
  async secure(packs: Iterable<PackId>): Promise<number> {
    let earliest = this.#options.now()
    await inParallel(packs, parallelRequests, async (id) => {
      if (!this.#isAlive(id, this.#options.graceMs / 4)) await this.#revive(id)
      earliest = Math.min(earliest, this.#known.get(id)?.aliveAtMs ?? 0)
    })
    return earliest
  }

  /** Not older than a sixteenth of the grace time. */
  async condemned(): Promise<Condemned> {
    const last = this.#condemned
    if (last && !isWithin(this.#options.now() - last.atMs, this.#options.graceMs / 16)) this.#condemned = undefined
    if (this.#condemned) return this.#condemned.list
    const atMs = this.#options.now()
    const list = readCollectorState(this.#store).then(({ state }) => ({ keys: new Set(state.condemned.keys()), atMs }))
    const read = { atMs, list }
    this.#condemned = read
    list.catch(() => {
      if (this.#condemned === read) this.#condemned = undefined
    })
    return list
  }

  async #put(id: PackId, bytes: Uint8Array): Promise<{ readonly id: PackId; readonly uploadedBytes: number }> {
    if (this.#isAlive(id, this.#options.graceMs / 8)) return { id, uploadedBytes: 0 }
    if (await this.#findAlive(id, bytes.length)) return { id, uploadedBytes: 0 }
    await this.#putCopy(id, bytes)
    return { id, uploadedBytes: bytes.length }
  }

  /** What is condemned is read before it is looked whether the pack is there: the other way round it could be deleted in between and off the list already. */
  async #findAlive(id: PackId, sizeBytes?: number): Promise<boolean> {
    const { keys, atMs } = await this.condemned()
    const copies = await this.#copies(id)
    const usable = copies.find((found) => !keys.has(found.key) && (sizeBytes === undefined || found.sizeBytes === sizeBytes))
    if (usable) this.#remember(id, { copy: usable.copy, aliveAtMs: atMs })
    return usable !== undefined
  }

  async #revive(id: PackId): Promise<void> {
    if (!(await this.#findAlive(id))) await this.#putCopy(id, await this.get(id))
  }

  async #putCopy(id: PackId, bytes: Uint8Array): Promise<void> {
    const aliveAtMs = this.#options.now()
    const copy = objectNames.newCopy()
    await this.#store.put(objectNames.pack(id, copy), bytes)
    this.#remember(id, { copy, aliveAtMs })
  }

  async #copies(id: PackId): Promise<{ readonly key: string; readonly copy: string; readonly sizeBytes: number }[]> {
    const found = []
    for await (const { key, sizeBytes } of this.#store.list(objectNames.packCopies(id))) {
      const parsed = parsePackKey(key)
      if (parsed) found.push({ key, copy: parsed.copy, sizeBytes })
    }
    return found
  }

  #isAlive(id: PackId, withinMs: number): boolean {
    const known = this.#known.get(id)
    return known !== undefined && isWithin(this.#options.now() - known.aliveAtMs, withinMs)
  }

  /** Those not used for longest are forgotten: knowing them only saves requests. */
  #remember(id: PackId, known: KnownPack): void {
    this.#known.delete(id)
    this.#known.set(id, known)
    for (const oldest of this.#known.keys()) {
      if (this.#known.size <= maxKnownPacks) break
      this.#known.delete(oldest)
    }
  }
}

/** A clock that was set back makes nothing young. */
function isWithin(ageMs: number, limitMs: number): boolean {
  return ageMs >= 0 && ageMs < limitMs
}
