import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { MounterClient, run } from '@mags/host'
import { installation } from '../config/installation.ts'
import type { ServerConfig } from '../config/server-config.ts'
import { type Check, failure, ok, warning } from './finding.ts'

const sharedKernel = "The weaker of the two walls: a container shares this machine's kernel"

/**
 * Whether the runtime is there, and whether the kernel can swap a root file system under a container: one overlay of idmapped layers is built and written through. Where it cannot, containers work without
 * workspaces if the ids of an image can be changed on disk, which is tried on a small one.
 */
export function checkContainers(config: ServerConfig): Check {
  return {
    part: 'containers',
    async run() {
      await using undo = new AsyncDisposableStack()
      const { mounterBinary } = await installation()
      const { dataDir, ociRuntime } = config
      const dir = join(dataDir, 'doctor')
      await mkdir(dir, { recursive: true, mode: 0o700 })
      undo.defer(() => rm(dir, { recursive: true, force: true }))
      const mounter = await MounterClient.start({ binary: mounterBinary, logFile: join(dir, 'mounter.log') })
      undo.defer(() => mounter.close())
      const version = await run(ociRuntime, ['--version']).catch(() => undefined)
      if (version === undefined)
        return failure(`${ociRuntime} cannot be started`, `install it (apt-get install ${ociRuntime}), or choose another with MAGS_OCI_RUNTIME`)
      const runtime = version.stdout.split('\n')[0]
      try {
        await mounter.probe(dir)
      } catch (error) {
        return await withoutMappedIds(mounter, dir, dataDir, `${runtime}; ${(error as Error).message}`)
      }
      if (ociRuntime === 'crun') return ok(`${runtime}; root file systems can be swapped in\n${sharedKernel}`)
      return warning(
        `${runtime}; each container is made with its root, so a job with a workspace waits for one\n${sharedKernel}`,
        'crun starts such jobs sooner (MAGS_OCI_RUNTIME=crun)',
      )
    },
  }
}

async function withoutMappedIds(mounter: MounterClient, dir: string, dataDir: string, found: string) {
  const place = `the folder ${dataDir} must lie on ext4, xfs or btrfs`
  try {
    const imageDir = join(dir, 'image')
    await mkdir(join(imageDir, 'folder'), { recursive: true })
    await mounter.resetUpper(join(dir, 'shifted'))
    await mounter.shift({ uidBase: 1 << 30, imageDir, dir: join(dir, 'shifted') })
  } catch {
    return failure(found, `containers are off; VMs are used where they work. Needed are Linux 5.19, and ${place}`)
  }
  return warning(
    `${found}; images are changed for each sandbox slot instead\n${sharedKernel}`,
    `there are no workspaces in containers, only in VMs. Linux 5.19 or newer lifts that, and ${place}`,
  )
}
