import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { MounterClient, run } from '@mags/host'
import { installation } from '../config/installation.ts'
import type { ServerConfig } from '../config/server-config.ts'
import { type Check, failure, ok } from './finding.ts'

/** Whether the kernel can swap a root file system under a container: one overlay of idmapped layers is built and written through. */
export function checkContainers(config: ServerConfig): Check {
  return {
    part: 'containers',
    async run() {
      await using undo = new AsyncDisposableStack()
      const { mounterBinary } = await installation()
      const dir = join(config.dataDir, 'doctor')
      await mkdir(dir, { recursive: true, mode: 0o700 })
      undo.defer(() => rm(dir, { recursive: true, force: true }))
      const mounter = await MounterClient.start({ binary: mounterBinary, logFile: join(dir, 'mounter.log') })
      undo.defer(() => mounter.close())
      try {
        await mounter.probe(dir)
      } catch (error) {
        return failure(
          `${(error as Error).message}`,
          `containers are off; VMs are used where they work. The folder ${config.dataDir} must lie on ext4, xfs or btrfs`,
        )
      }
      const version = (await run('crun', ['--version'])).stdout.split('\n')[0]
      return ok(`${version}; root file systems can be swapped in\nThe weaker of the two walls: a container shares this machine's kernel`)
    },
  }
}
