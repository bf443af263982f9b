import { statfs } from 'node:fs/promises'
import { MagsError } from '@mags/protocol'

const leastMb = 64

/** Refuses to start on a full disk, where a database would only say "I/O error". */
export async function requireFreeSpace(dataDir: string) {
  const { bavail, bsize } = await statfs(dataDir)
  const freeMb = (bavail * bsize) / 2 ** 20
  if (freeMb >= leastMb) return
  throw new MagsError('internal', `the disk of ${dataDir} is full (${freeMb.toFixed(1)} MB free); free some space, or choose another folder with --data-dir`)
}
