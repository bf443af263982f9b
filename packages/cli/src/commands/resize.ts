import { Command } from 'commander'
import type { CommandDefinition } from '../cli.ts'
import { openSession } from '../server/session.ts'
import { parseName } from '../workspaces/version-reference.ts'
import { wholeNumber } from './flag-values.ts'

export const resizeCommand: CommandDefinition = (cli, done) =>
  new Command('resize')
    .summary('give a workspace a bigger disk')
    .description('Gives a workspace a bigger disk. A job has it from its next start.')
    .argument('<name>', 'the workspace')
    .requiredOption('--disk <GB>', 'its new size', wholeNumber(1, 1_000_000))
    .option('--json', 'print the answer of the API')
    .action(async (text: string, { disk }: { disk: number }) => {
      const name = parseName(text)
      const { first: answer } = await openSession(cli, (mags) => mags.resizeWorkspace(name, disk, { signal: cli.interrupts.requested }))
      if (cli.output.json) await cli.output.data(answer)
      else await cli.output.out(`${name} has a disk of ${answer.disk_gb} GB from its next start\n`)
      done(0)
    })
