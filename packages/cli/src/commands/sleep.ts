import { Command } from 'commander'
import type { CommandDefinition } from '../cli.ts'
import { openSession } from '../server/session.ts'

export const sleepCommand: CommandDefinition = (cli, done) =>
  new Command('sleep')
    .summary('put a job to sleep')
    .description('Saves the workspace of a persistent job and puts it to sleep. A request to its URL, SSH, exec and wake let it go on.')
    .argument('<id>', 'id, name or workspace of the job')
    .option('--release', 'give its memory back, too: to disk (vm), or by ending its processes (container with a workspace)')
    .option('--json', 'print the answer of the API')
    .action(async (id: string, flags: { readonly release?: boolean }) => {
      const options = { release: flags.release, signal: cli.interrupts.requested }
      const { first: answer } = await openSession(cli, (mags) => mags.sleep(id, options))
      if (cli.output.json) await cli.output.data(answer)
      else await cli.output.out(`${answer.message}\n`)
      done(0)
    })
