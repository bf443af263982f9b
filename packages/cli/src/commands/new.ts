import { Command } from 'commander'
import type { CommandDefinition } from '../cli.ts'
import { parseName } from '../workspaces/version-reference.ts'
import { wholeNumber } from './flag-values.ts'

export const newCommand: CommandDefinition = (cli, done) =>
  new Command('new')
    .summary('start a sandbox that stays, on a workspace')
    .description('Starts a persistent sandbox on the workspace of the same name, which is made when there is none. Prints its id once it is ready.')
    .argument('<name>', 'name of the workspace and of the job')
    .option('--base <workspace>', 'begin as this one is; it is not changed')
    .option('--disk <GB>', 'writable disk', wholeNumber(1))
    .option('--json', "print the job's status as JSON")
    .action(async (text: string, flags: { base?: string; disk?: number }) => {
      const name = parseName(text)
      const baseWorkspaceId = flags.base === undefined ? undefined : parseName(flags.base)
      const { runJob } = await import('../run/run-job.ts')
      const options = { name, workspaceId: name, baseWorkspaceId, diskGb: flags.disk, persistent: true }
      done(await runJob(cli, { script: 'true', options, files: [], detach: false }))
    })
