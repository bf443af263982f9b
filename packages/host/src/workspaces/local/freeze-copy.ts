import type { LayerDisks } from './layer-disks.ts'
import { scopeFolder } from './scope-folder.ts'
import type { WorkingCopies } from './working-copies.ts'
import type { WorkingCopy } from './working-copy.ts'

export interface FreezeCopyDeps {
  readonly copies: WorkingCopies
  readonly disks: LayerDisks
  /** Takes everything but one folder out of the layer of a disk that nobody uses and no guest has written. */
  readonly narrow: (layerId: string, file: string, folder: string) => Promise<void>
}

/**
 * Has nobody write to the topmost layer of a copy at rest any more, so that others may be put on top of it; what is not kept of it is taken out before. Undefined: not now, for somebody reads it as it is.
 * The caller has the workspace's lock.
 */
export async function freezeCopy({ copies, disks, narrow }: FreezeCopyDeps, copy: WorkingCopy): Promise<WorkingCopy | undefined> {
  if (copy.frozen) return copy
  const [top] = copy.layers
  let { settled } = copy
  if (copy.scope !== undefined && top !== undefined) {
    if (copies.isShared(top, copy.storageId)) return undefined
    settled = false
    await copies.set({ ...copy, settled })
    await narrow(top, disks.file(top), scopeFolder(copy.scope))
  }
  const frozen = { ...copy, settled, frozen: true }
  await copies.set(frozen)
  return frozen
}
