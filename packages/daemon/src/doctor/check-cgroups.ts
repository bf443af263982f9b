import { openCgroupTree } from '@mags/host'
import { type Check, ok } from './finding.ts'

/** Makes a group with limits and removes it again: what every sandbox needs. */
export const checkCgroups: Check = {
  part: 'cgroups',
  async run() {
    const tree = await openCgroupTree()
    const path = '/mags/doctor'
    try {
      await tree.create(path, { memoryMb: 64, vcpus: 1, pids: 16 })
    } finally {
      await tree.remove(path)
    }
    return ok(`version ${tree.version}; memory, cpu and pids limits can be set`)
  },
}
