import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { MagsError } from '@mags/protocol'
import type { AgentConnection } from '../../agent/connection.ts'
import { workspaceSerial } from './command-line.ts'
import { type DiskSlot, lendDisk, makeWorkspaceDisk } from './workspace-disk.ts'

export const firstDiskName = 'disk.raw'
export const workspaceDiskName = 'workspace.raw'

export interface ChangeDiskOptions {
  readonly agent: AgentConnection
  readonly slot: DiskSlot
  /** The machine's folder, which QEMU has as its root. */
  readonly directory: string
  /** QEMU's user. */
  readonly uid: number
  /** Of the new disk, in that folder. */
  readonly name: string
  /** Of a disk made for it. */
  readonly diskGb: number
  /** A disk that is there already, to be lent instead. */
  readonly lentFrom: string | undefined
  /** See `SandboxRoot.scope`. */
  readonly scope: string | undefined
}

/** The composed root of a running machine is on a disk of the usual size that holds nothing; this job wants another. Rejects with MagsError 'sandbox_failed' when one that is lent cannot be mounted. */
export async function changeDisk({ agent, slot, directory, uid, name, diskGb, lentFrom, scope }: ChangeDiskOptions): Promise<void> {
  const file = join(directory, name)
  const making = lentFrom === undefined ? makeWorkspaceDisk(file, diskGb, uid) : lendDisk(lentFrom, file, uid)
  const [disk] = await Promise.all([making, agent.detachDisk()])
  await slot.swapIn(disk)
  await rm(join(directory, firstDiskName), { force: true })
  await agent.attachDisk(workspaceSerial, disk.fileSystemUuid, scope).catch((error: unknown) => {
    throw lentFrom !== undefined && error instanceof MagsError && error.details?.errno !== undefined ? unusableDisk(error) : error
  })
}

/** The guest of an earlier job can do anything to its disk. The caller gives such a disk up. */
function unusableDisk(error: MagsError): MagsError {
  const words = `the disk of the workspace cannot be mounted any more (${error.message}); what was not saved on it is lost, start the job again to go on from the last saved version`
  return new MagsError('sandbox_failed', words, { cause: error })
}
