import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { ImageCatalogue, openVmDriver } from '@mags/host'
import { pino } from 'pino'
import { installation } from '../config/installation.ts'
import type { ServerConfig } from '../config/server-config.ts'
import { type Check, ok, warning } from './finding.ts'

/** Whether KVM boots a guest to its agent; a /dev/kvm that merely exists proves nothing. */
export function checkVms(config: ServerConfig): Check {
  return {
    part: 'VMs',
    async run() {
      await using undo = new AsyncDisposableStack()
      const { agentBinary } = await installation()
      const vmDir = join(config.dataDir, 'doctor-vm')
      await mkdir(vmDir, { recursive: true, mode: 0o711 })
      undo.defer(() => rm(vmDir, { recursive: true, force: true }))
      const driver = await openVmDriver({
        kernelDir: join(config.systemDir, 'kernels', 'current'),
        agentPath: agentBinary,
        cacheDir: join(config.systemDir, 'cache', 'vm'),
        vmDir,
        images: await ImageCatalogue.open(join(config.systemDir, 'images')),
        defaultShape: config.defaults,
        logger: pino({ level: 'silent' }),
      })
      undo.defer(() => driver.close())
      if (driver.isolation === 'kvm') return ok(driver.detail)
      return warning(driver.detail, 'VMs run, slowly; on real hardware turn on virtualization in the firmware and load kvm_intel or kvm_amd')
    },
  }
}
