import { getHeapStatistics } from 'node:v8'
import { MagsError } from '@mags/protocol'

/** What a name, folder or attribute costs in memory for each byte that is counted of it; measured with a million folders. */
const costPerByte = 6
const shareOfHeap = 0.4

/** What all imports of a process may count together. */
export interface MemoryPool {
  leftBytes: number
}

export function memoryPool(): MemoryPool {
  return { leftBytes: Math.floor((getHeapStatistics().heap_size_limit * shareOfHeap) / costPerByte) }
}

/** What the tree of one import has of a pool: many at once must not take all memory of this process. Gives it back when disposed of. */
export class ImportMemory implements Disposable {
  readonly #pool: MemoryPool
  #taken = 0

  constructor(pool: MemoryPool) {
    this.#pool = pool
  }

  /** Throws MagsError 'no_capacity' when there is no more. */
  take(bytes: number): void {
    if (bytes > this.#pool.leftBytes)
      throw new MagsError(
        'no_capacity',
        'the images that are being made have more files than this server has memory for at once; try again when others are done',
      )
    this.#pool.leftBytes -= bytes
    this.#taken += bytes
  }

  [Symbol.dispose]() {
    this.#pool.leftBytes += this.#taken
    this.#taken = 0
  }
}
