import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { MounterClient } from '../../mounter/mounter-client.ts'

export interface NarrowDiskDeps {
  readonly mounter: Pick<MounterClient, 'mountImage' | 'unmount' | 'narrowUpper' | 'sweepUpper'>
  /** Folder of mount points; what is mounted there only the mounter sees. */
  readonly mountsDir: string
}

const sweptAtOnce = 10_000

/** Takes everything but one folder at the top out of the layer of a disk that nobody uses and no guest has written. */
export async function narrowDisk({ mounter, mountsDir }: NarrowDiskDeps, name: string, file: string, folder: string): Promise<void> {
  await using undo = new AsyncDisposableStack()
  const dir = join(mountsDir, name)
  await mkdir(dir, { recursive: true, mode: 0o700 })
  undo.defer(() => rm(dir, { recursive: true, force: true }))
  await mounter.mountImage(file, dir)
  undo.defer(() => mounter.unmount(dir))
  let left = await mounter.narrowUpper({ dir, folder, lowerDirs: [] })
  // It is put under others for good: what cannot be seen any more only takes room. What cannot be removed does no other harm.
  while (left) left = await mounter.sweepUpper(dir, sweptAtOnce).catch(() => false)
}
