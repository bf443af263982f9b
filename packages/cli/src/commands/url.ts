import { Command, Option } from 'commander'
import type { CommandDefinition } from '../cli.ts'
import { usageError } from '../exit/cli-error.ts'
import { openSession } from '../server/session.ts'
import { wholeNumber } from './flag-values.ts'
import { urlAliasCommand } from './url-alias.ts'

const defaultPort = 8080
const parsePort = wholeNumber(1, 65_535)

interface UrlFlags {
  readonly port?: number
  readonly visibility?: 'public' | 'token'
}

export const urlCommand: CommandDefinition = (cli, done) =>
  new Command('url')
    .summary('open a port of a job to the web')
    .description(
      'Prints the URL of a persistent job, which leads to this port of its sandbox from now on; without a port, to the one it has. A sleeping job is woken.',
    )
    .argument('<id>', 'id, name or workspace of the job')
    .argument('[port]', `port of the server in the sandbox (the one it has; ${defaultPort} at first)`, parsePort)
    .option('--port <port>', 'the same as a flag', parsePort)
    .addOption(new Option('--visibility <who>', 'who may see it: public, or token (who has a token of yours)').choices(['public', 'token']))
    .option('--json', 'print the answer of the API')
    .addCommand(urlAliasCommand(cli, done))
    .action(async (id: string, given: number | undefined, flags: UrlFlags) => {
      if (given !== undefined && flags.port !== undefined && given !== flags.port) throw usageError('The port is given twice; give it once.')
      const wanted = given ?? flags.port
      if (wanted === 22) throw usageError("Port 22 is for SSH: 'mags ssh' connects to it.")
      const signal = cli.interrupts.requested
      const { first: access } = await openSession(cli, async (mags) => {
        const port = wanted ?? (await mags.status(id, { signal })).port ?? defaultPort
        return await mags.enableAccess(id, port, { visibility: flags.visibility, signal })
      })
      if (cli.output.json) await cli.output.data(access)
      else await cli.output.out(`${access.url}\n`)
      done(0)
    })
