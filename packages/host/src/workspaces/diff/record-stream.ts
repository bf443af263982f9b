import type { TreeRecord } from '../tree/tree-record.ts'

/** Records one at a time, with a look at the next. */
export class RecordStream {
  readonly #batches: AsyncIterator<TreeRecord[]>
  #batch: TreeRecord[] = []
  #at = 0
  next: TreeRecord | undefined

  constructor(batches: AsyncIterable<TreeRecord[]>) {
    this.#batches = batches[Symbol.asyncIterator]()
  }

  /** Gives the next one and goes on to the one after it; must be called once before `next` is looked at. */
  async take(): Promise<TreeRecord | undefined> {
    const taken = this.next
    while (this.#at === this.#batch.length) {
      const { value, done } = await this.#batches.next()
      if (done === true) {
        this.next = undefined
        return taken
      }
      this.#batch = value
      this.#at = 0
    }
    this.next = this.#batch[this.#at++]
    return taken
  }

  async close(): Promise<void> {
    await this.#batches.return?.()
  }
}
