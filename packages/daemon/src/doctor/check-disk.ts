import { statfs } from 'node:fs/promises'
import { type Check, failure, ok, warning } from './finding.ts'

const leastGb = 2
const comfortableGb = 10

/** Free space where sandboxes' disks lie. They are sparse files: what is free is what they can grow by, all together. */
export function checkDisk(dataDir: string): Check {
  return {
    part: 'disk',
    async run() {
      const { bavail, bsize, ffree } = await statfs(dataDir)
      const freeGb = (bavail * bsize) / 2 ** 30
      const found = `${freeGb.toFixed(1)} GB free in ${dataDir}`
      const advice = 'free some space, or choose another folder with MAGS_DATA_DIR'
      if (freeGb < leastGb) return failure(found, advice)
      if (freeGb < comfortableGb) return warning(found, advice)
      if (ffree === 0) return failure(`${found}, but no free inodes`, advice)
      return ok(found)
    },
  }
}
