import { MagsError } from '@mags/protocol'
import type { AgentConnection, AgentIdentity } from '../../agent/connection.ts'
import { workspaceSerial } from './command-line.ts'
import type { WorkspaceDisk } from './workspace-disk.ts'

/**
 * Has the guest go through all that a job's start needs, on a disk swapped in before, and leaves the disk attached. Under emulation this fills QEMU's translation cache, which is most of the time a first start
 * takes (260 ms without, 55 with); with KVM it still fills the guest's page cache.
 */
export async function rehearse(agent: AgentConnection, disk: WorkspaceDisk, identity: AgentIdentity): Promise<void> {
  await agent.attachDisk(workspaceSerial, disk.fileSystemUuid)
  await agent.identity(identity)
  await execToEnd(agent)
  await agent.detachDisk()
  await agent.attachDisk(workspaceSerial, disk.fileSystemUuid)
  await agent.identity(identity)
  await execToEnd(agent)
}

async function execToEnd(agent: AgentConnection): Promise<void> {
  const exec = agent.exec(
    { argv: ['/bin/sh'], script: '#!/bin/sh\necho warm\n', env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root' } },
    () => undefined,
  )
  try {
    const [exit] = await Promise.all([exec.exit, exec.eof])
    if (exit.kind !== 'exited' || exit.code !== 0) {
      throw new MagsError('sandbox_failed', `a first program in a new virtual machine failed: ${exit.message || `${exit.kind} ${exit.code}`}`)
    }
  } finally {
    exec.close()
  }
}
