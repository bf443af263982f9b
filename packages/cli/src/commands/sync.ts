import { Command } from 'commander'
import type { CommandDefinition } from '../cli.ts'
import { openSession } from '../server/session.ts'
import { formatBytes } from '../terminal/format-bytes.ts'

export const syncCommand: CommandDefinition = (cli, done) =>
  new Command('sync')
    .summary('save the workspace of a running job now')
    .description('Saves the workspace of a running job as a new version, and returns once that is in the object store.')
    .argument('<id>', 'id, name or workspace of the job')
    .option('--json', 'print the answer of the API')
    .action(async (id: string) => {
      const { first: answer } = await openSession(cli, (mags) => mags.sync(id, { signal: cli.interrupts.requested }))
      const reference = `${answer.workspace_id}@${answer.version}`
      if (cli.output.json) await cli.output.data(answer)
      else
        await cli.output.out(
          answer.bytes_uploaded === 0 ? `nothing new since ${reference}\n` : `saved ${reference} (${formatBytes(answer.bytes_uploaded)} uploaded)\n`,
        )
      done(0)
    })
