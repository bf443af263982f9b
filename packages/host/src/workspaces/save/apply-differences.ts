import { compareTreeOrder } from '../tree/tree-order.ts'
import type { LayerRecord } from './layer-tree.ts'

/** `before` with `differences` applied to it; both in tree order, and so is what comes out. */
export function* applyDifferences(before: Iterable<LayerRecord>, differences: Iterable<LayerRecord>): Generator<LayerRecord> {
  const changes = differences[Symbol.iterator]()
  let change = changes.next()
  for (const record of before) {
    let order = 1
    while (change.done !== true && order > 0) {
      order = compareTreeOrder(record.path, change.value.path)
      if (order < 0) break
      if (change.value.status !== 'removed') yield change.value
      change = changes.next()
    }
    if (order !== 0) yield record
  }
  for (; change.done !== true; change = changes.next()) if (change.value.status !== 'removed') yield change.value
}
