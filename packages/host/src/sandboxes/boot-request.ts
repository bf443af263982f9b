import { MagsError } from '@mags/protocol'
import type { AgentExecRequest } from '../agent/connection.ts'
import type { Sandbox } from '../drivers/driver.ts'
import { AgentSandboxFiles } from './sandbox-files.ts'

/** As kernels look for it first. */
const initProgram = '/sbin/init'
/** Wide enough for what an init says about its services. */
const consoleSize = { rows: 24, cols: 160 }

/** Rejects with MagsError 'not_available' for a kind of sandbox whose image cannot be booted. */
export function checkBoots(sandbox: Pick<Sandbox, 'isolation' | 'agent'>) {
  if (sandbox.isolation === 'container') {
    throw new MagsError('not_available', 'init: containers share the kernel of this server and cannot boot an image; ask for isolation vm')
  }
  if (!sandbox.agent.boots) throw new MagsError('not_available', 'init: this virtual machine was made by an earlier release; start it again')
}

/**
 * The start of an attached sandbox's own init; its output is a console that is only read. Rejects with MagsError 'not_available' when there is none.
 * `container` is how inits learn that devices and clock are not theirs, https://systemd.io/CONTAINER_INTERFACE; a dumb terminal keeps colours and cursors out of the log.
 */
export async function bootRequest(sandbox: Pick<Sandbox, 'isolation' | 'agent'>, environment: Readonly<Record<string, string>>): Promise<AgentExecRequest> {
  checkBoots(sandbox)
  const init = await new AgentSandboxFiles(sandbox.agent).stat(initProgram).catch((error: unknown) => {
    if (error instanceof MagsError && error.code === 'not_found') return undefined
    throw error
  })
  if (init?.type !== 'file') {
    throw new MagsError(
      'not_available',
      `init: the image has no ${initProgram}; use one that does (such as debian-12), or install an init system in it (in Debian: systemd-sysv)`,
    )
  }
  const env = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root', TERM: 'dumb', container: 'mags', ...environment }
  return { argv: [initProgram], env, init: true, pty: consoleSize }
}
