import { randomUUID } from 'node:crypto'
import { chmod, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { ResolvedConfig } from '@mags/sdk'

/** Where keys and host keys for OpenSSH's client are kept: `~/.mags/ssh`. */
export interface SshFolder {
  readonly knownHostsFile: string
  /** Every port of a server has the same host key. */
  readonly hostKeyAlias: string
  file(name: string): string
}

export async function openSshFolder(config: Pick<ResolvedConfig, 'apiUrl' | 'configFile'>): Promise<SshFolder> {
  const server = new URL(config.apiUrl)
  const hostKeyAlias = ['mags', server.hostname.replace(/[^A-Za-z0-9.]/g, '-'), server.port].filter((part) => part !== '').join('-')
  const folder = join(dirname(config.configFile), 'ssh')
  await mkdir(folder, { recursive: true, mode: 0o700 })
  await chmod(folder, 0o700)
  return { knownHostsFile: join(folder, 'known_hosts'), hostKeyAlias, file: (name) => join(folder, name) }
}

/** Writes a private key (mode 0600), whole or not at all: two may connect at once. */
export async function writeKey(file: string, key: string): Promise<void> {
  const draft = `${file}.${randomUUID()}`
  try {
    await writeFile(draft, key.endsWith('\n') ? key : `${key}\n`, { mode: 0o600, flag: 'wx' })
    await rename(draft, file)
  } finally {
    await rm(draft, { force: true })
  }
}

/** Undefined when it is not there. */
export async function readKey(file: string): Promise<string | undefined> {
  return await readFile(file, 'utf8').catch(() => undefined)
}
