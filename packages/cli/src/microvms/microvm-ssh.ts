import { type Mags, resolveConfig, type SshConnectionWire } from '@mags/sdk'
import type { Cli } from '../cli.ts'
import { CliError } from '../exit/cli-error.ts'
import { isHost, isPrivateKey, sshArguments } from '../ssh/ssh-command-line.ts'
import { openSshFolder, readKey, writeKey } from '../ssh/ssh-folder.ts'

export interface MicrovmSsh {
  readonly name: string
  readonly connection: SshConnectionWire
  readonly terminal: boolean
}

/**
 * Arguments for `ssh` into a microVM. A key that the server made is downloaded once and kept in `~/.mags/ssh`; a key of the user's own is found by ssh itself. Throws CliError for an answer that no server of ours gives:
 * its parts become arguments of a program.
 */
export async function microvmSshArguments(cli: Cli, mags: Mags, { name, connection, terminal }: MicrovmSsh, command: readonly string[]): Promise<string[]> {
  const { host, port, key_generated: generated, key_file: keyFile } = connection
  const isPort = Number.isInteger(port) && port > 0 && port < 65_536
  if (!isHost(host) || !isPort || (generated && !/^vm-[0-9a-f-]{36}-key\.pem$/.test(keyFile ?? '')))
    throw new CliError('The server did not say how to reach the microVM by SSH (host, port and key).', { code: 'bad_answer' })
  const folder = await openSshFolder(resolveConfig({ env: cli.env }))
  let identityFile: string | undefined
  if (generated) {
    identityFile = folder.file(keyFile ?? '')
    if ((await readKey(identityFile)) === undefined) {
      const key = await mags.microvms.downloadKey(name, { signal: cli.interrupts.requested })
      if (!isPrivateKey(key)) throw new CliError('What the server sent is no private key.', { code: 'bad_answer' })
      await writeKey(identityFile, key)
    }
  }
  const place = { host, port, user: 'root', knownHostsFile: folder.knownHostsFile, hostKeyAlias: folder.hostKeyAlias } as const
  return sshArguments({ ...place, ...(identityFile === undefined ? {} : { identityFile }) }, { terminal }, command)
}
