import type { ResolvedConfig, SshAccessWire } from '@mags/sdk'
import { CliError } from '../exit/cli-error.ts'
import { isHost, isPrivateKey } from './ssh-command-line.ts'
import { openSshFolder, writeKey } from './ssh-folder.ts'

/** Where OpenSSH's client finds a sandbox, and with what. */
export interface SshPlace {
  readonly host: string
  readonly port: number
  readonly user: 'root'
  /** Absent: ssh looks for the user's own keys. */
  readonly identityFile?: string
  readonly knownHostsFile: string
  readonly hostKeyAlias: string
}

/** Writes the key of an access down. Throws CliError for an answer that no server of ours gives: its parts become arguments of a program. */
export async function writeSshPlace(
  access: SshAccessWire,
  config: Pick<ResolvedConfig, 'apiUrl' | 'configFile'>,
): Promise<SshPlace & { readonly identityFile: string }> {
  const { ssh_host: host, ssh_port: port, ssh_private_key: key } = access
  if (!isHost(host) || !Number.isInteger(port) || port < 1 || port > 65_535 || !isPrivateKey(key)) {
    throw new CliError('The server did not say how to reach the sandbox by SSH (host, port and key).', { code: 'bad_answer' })
  }
  const { hostKeyAlias, knownHostsFile, file } = await openSshFolder(config)
  const identityFile = file(`${hostKeyAlias}-${port}.key`)
  await writeKey(identityFile, key)
  return { host, port, user: 'root', identityFile, knownHostsFile, hostKeyAlias }
}
