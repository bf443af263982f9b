import type { UpdateOptions } from '@mags/sdk'
import { Command, Option } from 'commander'
import type { CommandDefinition } from '../cli.ts'
import { usageError } from '../exit/cli-error.ts'
import { openSession } from '../server/session.ts'
import { wholeNumber } from './flag-values.ts'
import { addEgressFlags, type EgressFlags, egressOption } from './sandbox-flags.ts'

interface SetFlags extends EgressFlags {
  readonly sleep?: boolean
  readonly startupCommand?: string
  readonly port?: number
  readonly visibility?: 'public' | 'token'
}

export const setCommand: CommandDefinition = (cli, done) =>
  addEgressFlags(
    new Command('set')
      .summary('change a job that is not over')
      .description('Changes a job that is not over. What is not named stays as it is.')
      .argument('<id>', 'id, name or workspace of the job')
      .option('--sleep', 'put to sleep when idle')
      .option('--no-sleep', 'never put to sleep')
      .option('--startup-command <command>', 'run when it wakes without its processes; empty takes it away')
      .option('--port <port>', 'port that its URL reaches', wholeNumber(1, 65_535))
      .addOption(new Option('--visibility <who>', 'who may see its URL: public, or token (who has a token of yours)').choices(['public', 'token'])),
  )
    .option('--json', 'print the answer of the API')
    .action(async (id: string, flags: SetFlags) => {
      if (flags.port === 22) throw usageError("Port 22 is for SSH: 'mags ssh' connects to it.")
      const change: UpdateOptions = {
        noSleep: flags.sleep === undefined ? undefined : !flags.sleep,
        startupCommand: flags.startupCommand === '' ? null : flags.startupCommand,
        port: flags.port,
        visibility: flags.visibility,
        egress: egressOption(flags),
      }
      if (Object.values(change).every((value) => value === undefined)) throw usageError("Nothing to change; 'mags set --help' shows what can be.")
      const { first: answer } = await openSession(cli, (mags) => mags.updateJob(id, { ...change, signal: cli.interrupts.requested }))
      if (cli.output.json) await cli.output.data(answer)
      else await cli.output.out(`${answer.message}\n`)
      done(0)
    })
