import { readdir, readFile } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { identifyProcess, type ProcessIdentity } from '../../recover/process-identity.ts'

/**
 * QEMU processes (and their starters) whose root folder is directly below `vmDir`, found by their arguments. That finds even one whose record the daemon did not live to write.
 */
export async function findMachines(vmDir: string): Promise<{ process: ProcessIdentity; folder: string }[]> {
  const found = []
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const line = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '')
    const args = line.split('\0')
    const root = args[args.indexOf('-chroot') + 1]
    if (!args.includes('-chroot') || root === undefined || dirname(root) !== vmDir) continue
    const process = await identifyProcess(Number(name))
    if (process !== undefined) found.push({ process, folder: basename(root) })
  }
  return found
}
