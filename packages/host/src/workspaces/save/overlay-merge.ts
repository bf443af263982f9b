import type { ExtendedAttribute } from '../../layers/layer-session.ts'
import { compareTreeOrder, isUnder } from '../tree/tree-order.ts'
import type { TreeRecord } from '../tree/tree-record.ts'
import type { LayerRecord } from './layer-tree.ts'

const opaqueName = 'trusted.overlay.opaque'
const opaque: ExtendedAttribute = { name: opaqueName, value: Buffer.from('y') }

export function isOpaque({ attributes }: Pick<TreeRecord, 'attributes'>): boolean {
  return attributes.some(({ name, value }) => name === opaqueName && value.equals(opaque.value))
}

/**
 * What one sees through `upper` on `lower`, both relative to the same image, as one layer on that image (Documentation/filesystems/overlayfs.rst): a whiteout hides what is below and stays, a folder over a
 * folder joins it, everything else takes its place. Devices of `upper` hide what is below and are not there themselves.
 */
export function* mergeOverlay(upper: Iterable<LayerRecord>, lower: Iterable<TreeRecord>): Generator<TreeRecord> {
  const below = lower[Symbol.iterator]()
  let under = below.next()
  /** Everything below it is hidden. */
  let hiding: Buffer | undefined
  const isHidden = (path: Buffer): boolean => {
    if (hiding === undefined) return false
    if (isUnder(path, hiding)) return true
    hiding = undefined
    return false
  }
  for (const record of upper) {
    let order = -1
    while (under.done !== true) {
      order = compareTreeOrder(under.value.path, record.path)
      if (order >= 0) break
      if (!isHidden(under.value.path)) yield under.value
      under = below.next()
    }
    const same = under.done !== true && order === 0 ? under.value : undefined
    if (same !== undefined) under = below.next()
    const isFolder = record.kind === 'directory' && record.status !== 'device'
    const joins = isFolder && !isOpaque(record) && (same === undefined || same.kind === 'directory')
    // Only a folder that hides more than the one around it counts; inside of that everything is hidden anyway.
    const seen = same !== undefined && isHidden(same.path) ? undefined : same
    if (!joins && !isInside(record.path, hiding)) hiding = record.path
    if (record.status === 'device') continue
    // Where the version below hid the image, the joined folder has to.
    const hidesImage = isFolder && seen !== undefined && (seen.kind !== 'directory' || isOpaque(seen))
    yield hidesImage && !isOpaque(record) ? { ...record, attributes: withOpaque(record.attributes) } : record
  }
  for (; under.done !== true; under = below.next()) if (!isHidden(under.value.path)) yield under.value
}

function isInside(path: Buffer, folder: Buffer | undefined): boolean {
  return folder !== undefined && isUnder(path, folder)
}

function withOpaque(attributes: readonly ExtendedAttribute[]): ExtendedAttribute[] {
  return [...attributes, opaque].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0))
}
