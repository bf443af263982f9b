import { Command } from 'commander'
import type { CommandDefinition } from '../cli.ts'
import { openSession } from '../server/session.ts'

export const wakeCommand: CommandDefinition = (cli, done) =>
  new Command('wake')
    .summary('wake a sleeping job')
    .description('Wakes a sleeping job. What reaches it (its URL, ssh, exec) wakes it by itself.')
    .argument('<id>', 'id, name or workspace of the job')
    .option('--json', 'print the answer of the API')
    .action(async (id: string) => {
      const { first: answer } = await openSession(cli, (mags) => mags.wake(id, { signal: cli.interrupts.requested }))
      if (cli.output.json) await cli.output.data(answer)
      else await cli.output.out(`${answer.message}\n`)
      done(0)
    })
