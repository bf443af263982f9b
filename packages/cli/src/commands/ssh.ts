import { resolveConfig } from '@mags/sdk'
import { Command } from 'commander'
import type { CommandDefinition } from '../cli.ts'
import { openSession } from '../server/session.ts'
import { commandWords } from './command-words.ts'

interface SshFlags {
  readonly tty: boolean
  readonly print: boolean
}

export const sshCommand: CommandDefinition = (cli, done) =>
  new Command('ssh')
    .summary('a shell in a sandbox')
    .description(
      "Opens a shell in a sandbox through OpenSSH's client, or runs one command, and ends with its exit code. A sleeping sandbox is woken; when none of that name runs, one is started on the workspace of that name. Flags come before the name.",
    )
    .argument('<name>', 'name, workspace or id of the job')
    .argument('[command...]', 'shell command; several words are joined by spaces')
    .option('-t, --tty', 'give the command a terminal', false)
    .option('--print', 'print the command line for ssh and a block for ~/.ssh/config (VS Code and others) instead', false)
    .option('--json', 'print where it is and the file with its key as JSON instead')
    .passThroughOptions()
    .action(async (name: string, words: string[], flags: SshFlags) => {
      const command = commandWords(words, 'ssh')
      const [{ openSshAccess }, { writeSshPlace }, { describeSsh, sshArguments }] = await Promise.all([
        import('../ssh/open-ssh-access.ts'),
        import('../ssh/ssh-place.ts'),
        import('../ssh/ssh-command-line.ts'),
      ])
      const { first: access } = await openSession(cli, (mags) => openSshAccess(cli, mags, name))
      const place = await writeSshPlace(access, resolveConfig({ env: cli.env }))
      const args = sshArguments(place, { terminal: flags.tty }, command)
      if (cli.output.json) {
        await cli.output.data({
          ...{ ssh_host: place.host, ssh_port: place.port, user: place.user, identity_file: place.identityFile },
          ...{ known_hosts_file: place.knownHostsFile, host_key_alias: place.hostKeyAlias, command: ['ssh', ...args] },
        })
        return done(0)
      }
      if (flags.print) {
        await cli.output.out(describeSsh(place, `mags-${name}`))
        return done(0)
      }
      const { runSsh } = await import('../ssh/run-ssh.ts')
      done(await runSsh(cli, args))
    })
