import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { LayerSession } from '../../layers/layer-session.ts'
import type { MounterClient } from '../../mounter/mounter-client.ts'

export interface FillDiskDeps {
  readonly mounter: Pick<MounterClient, 'mountImage' | 'unmount' | 'resetUpper'>
  /** Folder of mount points; what is mounted there only the mounter sees. */
  readonly mountsDir: string
  readonly openLayer: (dir: string) => Promise<LayerSession>
}

/** Mounts a blank disk that no guest has ever written, has its layer filled, and takes it down again. */
export async function fillDisk<T>(deps: FillDiskDeps, name: string, file: string, fill: (layer: LayerSession) => Promise<T>): Promise<T> {
  await using undo = new AsyncDisposableStack()
  const dir = join(deps.mountsDir, name)
  await mkdir(dir, { recursive: true, mode: 0o700 })
  undo.defer(() => rm(dir, { recursive: true, force: true }))
  await deps.mounter.mountImage(file, dir)
  undo.defer(() => deps.mounter.unmount(dir))
  await deps.mounter.resetUpper(dir)
  const layer = await deps.openLayer(dir)
  undo.defer(() => layer.close())
  return await fill(layer)
}
