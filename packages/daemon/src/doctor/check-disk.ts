import { mkdir, rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { MounterClient, makeScratchDisk } from '@mags/host'
import { installation } from '../config/installation.ts'
import { type Check, failure, ok, warning } from './finding.ts'

const leastGb = 2
const comfortableGb = 10

/** Free space where sandboxes' disks lie, and whether such a disk can be made and mounted. They are sparse files: what is free is what they can grow by, all together. */
export function checkDisk(dataDir: string): Check {
  return {
    part: 'disk',
    async run() {
      const { bavail, bsize, ffree } = await statfs(dataDir)
      const freeGb = (bavail * bsize) / 2 ** 30
      const found = `${freeGb.toFixed(1)} GB free in ${dataDir}`
      const advice = 'free some space, or choose another folder with MAGS_DATA_DIR'
      if (freeGb < leastGb) return failure(found, advice)
      if (ffree === 0) return failure(`${found}, but no free inodes`, advice)
      try {
        await mountDisk(join(dataDir, 'doctor-disk'))
      } catch (error) {
        return failure(
          `${found}; a disk of a sandbox cannot be mounted: ${(error as Error).message}`,
          'the kernel must have loop devices and ext4 (modprobe loop)',
        )
      }
      const words = `${found}; disk_gb is enforced by ext4 images on loop devices, whatever file system lies below`
      return freeGb < comfortableGb ? warning(words, advice) : ok(words)
    },
  }
}

async function mountDisk(dir: string) {
  await using undo = new AsyncDisposableStack()
  // One that was killed may have left its own.
  await rm(dir, { recursive: true, force: true })
  await mkdir(dir, { recursive: true, mode: 0o700 })
  undo.defer(() => rm(dir, { recursive: true, force: true }))
  const { mounterBinary } = await installation()
  const mounter = await MounterClient.start({ binary: mounterBinary, logFile: join(dir, 'mounter.log') })
  undo.defer(() => mounter.close())
  const mountPoint = join(dir, 'mounted')
  await mkdir(mountPoint)
  const { file } = await makeScratchDisk(join(dir, 'disk.img'), 1)
  await mounter.mountImage(file, mountPoint)
  await mounter.unmount(mountPoint)
}
