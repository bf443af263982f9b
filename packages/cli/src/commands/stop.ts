import { Command } from 'commander'
import type { CommandDefinition } from '../cli.ts'
import { openSession } from '../server/session.ts'

export const stopCommand: CommandDefinition = (cli, done) =>
  new Command('stop')
    .summary('stop a job')
    .description('Stops a job and gives its sandbox back. Stopping one that has ended does nothing.')
    .argument('<id>', 'id, name or workspace of the job')
    .option('--json', 'print the answer of the API')
    .action(async (id: string) => {
      const { first: answer } = await openSession(cli, (mags) => mags.stop(id, { signal: cli.interrupts.requested }))
      if (cli.output.json) await cli.output.data(answer)
      else await cli.output.out(`${answer.message}\n`)
      done(0)
    })
