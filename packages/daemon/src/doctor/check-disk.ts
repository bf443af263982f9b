import { mkdir, rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { MounterClient, makeScratchDisk } from '@mags/host'
import { installation } from '../config/installation.ts'
import { type Check, failure, ok, warning } from './finding.ts'

const leastGb = 2
const comfortableGb = 10
/** About where containers are held; see DiskRoom of the host. */
const fullGb = 0.125
const leastInodes = 1000

/** Free space where sandboxes' disks lie, and whether such a disk can be made and mounted. They are sparse files: what is free is what they can grow by, all together. */
export function checkDisk(dataDir: string): Check {
  return {
    part: 'disk',
    async run() {
      const { bavail, blocks, bsize, ffree, files } = await statfs(dataDir)
      const freeGb = (bavail * bsize) / 2 ** 30
      const sizes = freeGb < 1 ? `${Math.round(freeGb * 1024)} MB` : `${freeGb.toFixed(1)} GB`
      const found = `${sizes} of ${((blocks * bsize) / 2 ** 30).toFixed(1)} GB free in ${dataDir}`
      const advice = 'free some space, or choose another folder with MAGS_DATA_DIR'
      if (freeGb < fullGb) return failure(`it is full: ${found}; jobs and virtual machines stand still, and nothing new is stored, until there is room`, advice)
      if (freeGb < leastGb) return failure(found, advice)
      // File systems that make inodes as they need them count none.
      const inodes = `${ffree.toLocaleString('en-US')} of ${files.toLocaleString('en-US')} inodes free in ${dataDir}`
      if (files > 0 && ffree === 0) return failure(`it is full: ${inodes}; nothing new is stored until there are some`, 'remove some files')
      if (files > 0 && ffree < leastInodes) return warning(inodes, 'remove some files')
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
