import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Logger } from 'pino'
import type { LayerSession } from '../layers/layer-session.ts'
import type { MounterClient } from '../mounter/mounter-client.ts'
import { fillDisk } from './local/fill-disk.ts'
import { KeyedLock } from './local/keyed-lock.ts'
import { LayerDisks } from './local/layer-disks.ts'
import { narrowDisk } from './local/narrow-disk.ts'
import { restoreLayer } from './local/restore-layer.ts'
import { VersionDisks } from './local/version-disks.ts'
import { WorkingCopies } from './local/working-copies.ts'
import type { WorkspaceRepository } from './repository/repository.ts'
import { Workspaces } from './workspaces.ts'

export interface OpenWorkspacesDeps {
  readonly repository: WorkspaceRepository
  /** Disks and records, on a real disk. */
  readonly dataDir: string
  readonly mounter: Pick<MounterClient, 'mountImage' | 'unmount' | 'resetUpper' | 'narrowUpper' | 'sweepUpper'>
  /** A worker on the layer of a folder that the mounter has mounted. */
  readonly openLayer: (dir: string) => Promise<LayerSession>
  readonly defaultDiskGb: number
  readonly logger: Logger
}

/** Opens the workspaces of this machine: what earlier daemons left is taken over or removed. */
export async function openWorkspaces(deps: OpenWorkspacesDeps): Promise<Workspaces> {
  const disks = await LayerDisks.open(join(deps.dataDir, 'layers'), deps.defaultDiskGb)
  const copies = await WorkingCopies.open(join(deps.dataDir, 'workspaces'), disks, deps.logger)
  const locks = new KeyedLock()
  const mountsDir = join(deps.dataDir, 'filling')
  // Mount points of a daemon that was killed; what was mounted there only its mounter saw.
  await rm(mountsDir, { recursive: true, force: true })
  const fillDeps = { mounter: deps.mounter, openLayer: deps.openLayer, mountsDir }
  const versions = new VersionDisks({
    ...deps,
    disks,
    copies,
    locks,
    fill: (name, file, work) => fillDisk(fillDeps, name, file, work),
    restore: (layer, manifest, options) => restoreLayer(deps.repository.packs, layer, manifest, options),
  })
  const narrow = (name: string, file: string, folder: string) => narrowDisk(fillDeps, name, file, folder)
  return new Workspaces({ ...deps, disks, copies, locks, versions, narrow })
}
