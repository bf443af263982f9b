import { isIP } from 'node:net'
import type { SshPlace } from './ssh-place.ts'

export const isHost = (host: string): boolean => isIP(host) !== 0 || /^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(host)

/** In OpenSSH's own format. */
export const isPrivateKey = (key: string): boolean => /^-----BEGIN OPENSSH PRIVATE KEY-----\n[A-Za-z0-9+/=\n]+-----END OPENSSH PRIVATE KEY-----\n?$/.test(key)

/** Settings of ssh_config(5) for a sandbox, by name. */
function settingsOf(place: SshPlace): readonly (readonly [string, string])[] {
  return [
    ['Port', String(place.port)],
    ['User', place.user],
    ...(place.identityFile === undefined
      ? []
      : ([
          ['IdentityFile', asPath(place.identityFile)],
          ['IdentitiesOnly', 'yes'],
        ] as const)),
    ['UserKnownHostsFile', asPath(place.knownHostsFile)],
    ['HostKeyAlias', place.hostKeyAlias],
    ['StrictHostKeyChecking', 'accept-new'],
  ]
}

/** Arguments for `ssh`; `command` goes to the sandbox's shell as ssh(1) has it. */
export function sshArguments(place: SshPlace, options: { readonly terminal: boolean }, command: readonly string[]): string[] {
  const settings = settingsOf(place).flatMap(([name, value]) => ['-o', `${name}=${value}`])
  return [...settings, '-o', 'LogLevel=ERROR', ...(options.terminal ? ['-t'] : []), '--', place.host, ...command]
}

/** A block for `~/.ssh/config`, which VS Code and others read, with the command line as a comment in it: all of it may be appended there. */
export function describeSsh(place: SshPlace, alias: string): string {
  const line = ['ssh', ...sshArguments(place, { terminal: false }, [])].map(quoted).join(' ')
  const block = [`Host ${alias}`, `  HostName ${place.host}`, ...settingsOf(place).map(([name, value]) => `  ${name} ${value}`)]
  return `# ${line}\n\n# The same for ~/.ssh/config: then 'ssh ${alias}', scp, rsync, VS Code and others find it by that name.\n${block.join('\n')}\n`
}

/** ssh_config(5): quotes for spaces, and a percent sign begins a token. */
function asPath(path: string): string {
  return `"${path.replaceAll('%', '%%')}"`
}

function quoted(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}
