import { access, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { ImageCatalogue } from '@mags/host'
import { type Check, failure, ok } from './finding.ts'

export function checkImages(systemDir: string): Check {
  return {
    part: 'images',
    async run() {
      const catalogue = await ImageCatalogue.open(join(systemDir, 'images'))
      if (catalogue.names().length === 0) return failure(`none in ${join(systemDir, 'images')}`, './mags setup builds debian-12')
      const kernel = join(systemDir, 'kernels', 'current')
      const version = await readlink(kernel).catch(() => undefined)
      if (version === undefined) return failure(`${catalogue.names().join(', ')}; no kernel for VMs in ${kernel}`, './mags setup unpacks one')
      await access(join(kernel, 'vmlinux'))
      return ok(`${catalogue.names().join(', ')}; guest kernel ${version}`)
    },
  }
}
