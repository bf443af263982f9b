import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { describe, expect, it } from 'vitest'
import { findMachines } from './find-machines.ts'

describe('findMachines', () => {
  it('finds a process by its root folder, and no other', async () => {
    const start = (root: string) =>
      spawn(process.execPath, ['-e', 'console.log(1); setInterval(() => {}, 1e6)', '--', '-chroot', root], { stdio: ['ignore', 'pipe', 'ignore'] })
    const children = [start('/none/vms/0123456789ab'), start('/none/vms/a/b'), start('/none/other/0123456789ab')]
    try {
      await Promise.all(children.map((child) => once(child.stdout, 'data')))
      const found = await findMachines('/none/vms')
      expect(found.map((machine) => [machine.process.pid, machine.folder])).toEqual([[children[0]?.pid, '0123456789ab']])
    } finally {
      await Promise.all(
        children.map((child) => {
          child.kill('SIGKILL')
          return once(child, 'exit')
        }),
      )
    }
  })
})
