import { compareTreeOrder } from '../tree/tree-order.ts'
import { type LayerRecord, type LayerTree, layerRecords } from './layer-tree.ts'

/** Goes through a tree beside something else in the same order. */
export class Cursor {
  readonly #records: Generator<LayerRecord>
  #next: LayerRecord | undefined

  constructor(tree: LayerTree) {
    this.#records = layerRecords(tree)
    this.#step()
  }

  /** The records before a path; all that are left without one. */
  *before(path: Buffer | undefined): Generator<LayerRecord> {
    while (this.#next !== undefined && (path === undefined || compareTreeOrder(this.#next.path, path) < 0)) {
      const record = this.#next
      this.#step()
      yield record
    }
  }

  /** The record of this path, if there is one; those before it are passed. */
  at(path: Buffer): LayerRecord | undefined {
    while (this.#next !== undefined) {
      const order = compareTreeOrder(this.#next.path, path)
      if (order > 0) return undefined
      const record = this.#next
      this.#step()
      if (order === 0) return record
    }
    return undefined
  }

  #step(): void {
    const next = this.#records.next()
    this.#next = next.done === true ? undefined : next.value
  }
}
