import type { LayerEntry } from '../../layers/layer-session.ts'
import { Cursor } from '../save/cursor.ts'
import { isRacy } from '../save/is-racy.ts'
import { type LayerTree, LayerTreeWriter } from '../save/layer-tree.ts'

/** A tree with the stamps of the layer it was written to. */
export interface StampedTree {
  readonly layer: LayerTree
  readonly recheck: LayerTree
  /** The layer has exactly what was written. */
  readonly isExact: boolean
}

/** Enters the stamps of a layer that was just filled with `tree`. A file that is not there as it was written gets none, and so is read again by the next walk. */
export async function stampTree(walk: AsyncIterable<readonly LayerEntry[]>, tree: LayerTree, startedNs: bigint): Promise<StampedTree> {
  const layer = new LayerTreeWriter()
  const recheck = new LayerTreeWriter()
  const written = new Cursor(tree)
  let isExact = true
  for await (const entries of walk) {
    for (const { path, kind, stamp } of entries) {
      for (const missing of written.before(path)) {
        layer.add(missing)
        isExact = false
      }
      const record = written.at(path)
      isExact &&= record?.kind === kind
      if (record === undefined) continue
      const isFile = kind === 'file' && record.kind === 'file'
      const isAsWritten = isFile && stamp.sizeBytes === record.sizeBytes && stamp.mtimeNs === record.mtimeNs
      isExact &&= isAsWritten || !isFile
      const stamped = isAsWritten ? { ...record, inode: stamp.inode, ctimeNs: stamp.ctimeNs } : record
      layer.add(stamped)
      if (isAsWritten && record.sizeBytes > 0 && isRacy(stamped, startedNs)) recheck.add({ ...stamped, status: 'reread' })
    }
  }
  for (const missing of written.before(undefined)) {
    layer.add(missing)
    isExact = false
  }
  return { layer: layer.finish(), recheck: recheck.finish(), isExact }
}
