import { readdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { SandboxShape } from '../drivers/driver.ts'
import { bootName } from '../drivers/vm/boot-guest.ts'
import { readRecord } from '../recover/record-file.ts'
import type { Image } from './image-catalogue.ts'

/**
 * Whether a sandbox of another daemon on this machine has a version of an image: a container by its record beside ours, a virtual machine by its program's arguments. Words that name it, or undefined.
 */
export async function findForeignUse(image: Image, { runDir, dataDir }: { readonly runDir: string; readonly dataDir: string }): Promise<string | undefined> {
  const all = dirname(runDir)
  for (const instance of await readdir(all).catch(() => [])) {
    if (join(all, instance) === runDir) continue
    const containers = join(all, instance, 'c')
    for (const id of await readdir(containers).catch(() => [])) {
      const record = await readRecord<{ readonly shape?: SandboxShape }>(join(containers, id, 'record.json'))
      if (record?.shape?.image === image.name && (record.shape.imageDigest ?? image.digest) === image.digest) return `sandbox ${id} of the server ${instance}`
    }
  }
  for (const pid of await readdir('/proc')) {
    if (!/^[0-9]+$/.test(pid) || pid === `${process.pid}`) continue
    const words = await readFile(join('/proc', pid, 'cmdline'), 'latin1').catch(() => '')
    // Machines of ours are counted. One that makes a template has the file open and needs its name no more; it may have outlived a server whose folder is gone.
    const isSandbox = words.includes('qemu') && !words.includes(`\0${bootName}-`)
    if (isSandbox && words.includes(image.erofsFile) && !words.includes(`${dataDir}/`)) return `the virtual machine with process ${pid}`
  }
  return undefined
}
