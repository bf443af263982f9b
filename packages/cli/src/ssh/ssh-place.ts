import { randomUUID } from 'node:crypto'
import { chmod, mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import { dirname, join } from 'node:path'
import type { ResolvedConfig, SshAccessWire } from '@mags/sdk'
import { CliError } from '../exit/cli-error.ts'

/** Where OpenSSH's client finds a sandbox, and with what; `mags ssh` keeps the files in `~/.mags/ssh`. */
export interface SshPlace {
  readonly host: string
  readonly port: number
  readonly user: 'root'
  readonly identityFile: string
  readonly knownHostsFile: string
  /** Every port of a server has the same host key. */
  readonly hostKeyAlias: string
}

/** Writes the key of an access down (mode 0600). Throws CliError for an answer that no server of ours gives: its parts become arguments of a program. */
export async function writeSshPlace(access: SshAccessWire, config: Pick<ResolvedConfig, 'apiUrl' | 'configFile'>): Promise<SshPlace> {
  const { ssh_host: host, ssh_port: port, ssh_private_key: key } = access
  const isHost = isIP(host) !== 0 || /^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(host)
  const isKey = /^-----BEGIN OPENSSH PRIVATE KEY-----\n[A-Za-z0-9+/=\n]+-----END OPENSSH PRIVATE KEY-----\n?$/.test(key)
  if (!isHost || !Number.isInteger(port) || port < 1 || port > 65_535 || !isKey) {
    throw new CliError('The server did not say how to reach the sandbox by SSH (host, port and key).', { code: 'bad_answer' })
  }
  const server = new URL(config.apiUrl)
  const hostKeyAlias = ['mags', server.hostname.replace(/[^A-Za-z0-9.]/g, '-'), server.port].filter((part) => part !== '').join('-')
  const folder = join(dirname(config.configFile), 'ssh')
  await mkdir(folder, { recursive: true, mode: 0o700 })
  await chmod(folder, 0o700)
  const identityFile = join(folder, `${hostKeyAlias}-${port}.key`)
  // Whole or not at all: two may connect at once.
  const draft = `${identityFile}.${randomUUID()}`
  try {
    await writeFile(draft, key.endsWith('\n') ? key : `${key}\n`, { mode: 0o600, flag: 'wx' })
    await rename(draft, identityFile)
  } finally {
    await rm(draft, { force: true })
  }
  return { host, port, user: 'root', identityFile, knownHostsFile: join(folder, 'known_hosts'), hostKeyAlias }
}
