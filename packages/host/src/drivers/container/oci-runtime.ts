import { MagsError } from '@mags/protocol'
import { run } from '../../run.ts'

export type OciRuntime = 'crun' | 'runc'

/** The Debian packages they come in have their names. */
const known: readonly string[] = ['crun', 'runc'] satisfies OciRuntime[]
/** Runtimes that keep a program in a machine of its own, where a descriptor from outside means nothing. */
const walled = /^(runsc|kata)/

/** Why a runtime can never be used here, in words for who chose it; undefined when it can, once it is installed. */
export function describeUnsupported(name: string): string | undefined {
  if (walled.test(name)) return `the OCI runtime ${name} cannot take the agent's listening socket as a descriptor; use crun or runc, or isolation "vm"`
  return known.includes(name) ? undefined : `there is no support for the OCI runtime ${name}; use crun or runc`
}

/** Rejects with words for who chose it when it cannot be used. Resolves with the first line of its version. */
export async function checkOciRuntime(name: string): Promise<{ runtime: OciRuntime; version: string }> {
  const unsupported = describeUnsupported(name)
  if (unsupported !== undefined) throw new MagsError('not_available', unsupported)
  const { stdout } = await run(name, ['--version']).catch((error: unknown) => {
    throw new MagsError('not_available', `the OCI runtime ${name} cannot be started; install it (apt-get install ${name})`, { cause: error })
  })
  return { runtime: name as OciRuntime, version: stdout.split('\n')[0] ?? name }
}
