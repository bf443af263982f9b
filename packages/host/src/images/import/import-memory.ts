import { getHeapStatistics } from 'node:v8'
import { MagsError } from '@mags/protocol'

/** What names, folders and attributes cost in memory, compared with their bytes in the archive; measured for a million folders. */
const costPerByte = 6
const shareOfHeap = 0.4

interface Heap {
  readonly maxBytes: number
  takenBytes: number
}

/** What the trees of all imports that run have of this process's memory: many of them together must not end it. */
export class ImportMemory implements Disposable {
  readonly #heap: Heap
  #takenBytes = 0

  constructor(maxBytes = getHeapStatistics().heap_size_limit * shareOfHeap) {
    this.#heap = { maxBytes, takenBytes: 0 }
  }

  /** For one more import, out of the same memory. */
  share(): ImportMemory {
    const shared = new ImportMemory()
    shared.#useHeap(this.#heap)
    return shared
  }

  /** For so many bytes of an archive. Throws MagsError 'no_capacity' when there is no more. */
  take(bytes: number): void {
  }

  [Symbol.dispose]() {
  }
}
