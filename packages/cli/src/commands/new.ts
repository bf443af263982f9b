import { Command } from 'commander'
import type { CommandDefinition } from '../cli.ts'
import { parseName } from '../workspaces/version-reference.ts'
import { addSandboxFlags, type SandboxFlags, sandboxOptions } from './sandbox-flags.ts'

interface NewFlags extends SandboxFlags {
  readonly base?: string
  readonly sleep: boolean
}

export const newCommand: CommandDefinition = (cli, done) => {
  const command = new Command('new')
    .summary('start a sandbox that stays, on a workspace')
    .description('Starts a persistent sandbox on the workspace of the same name, which is made when there is none. Prints its id and its URL once it is ready.')
    .argument('<name>', 'name of the workspace and of the job')
    .option('--base <workspace>', 'begin as this one is; it is not changed')
  return addSandboxFlags(command, cli)
    .option('--no-sleep', 'never put to sleep')
    .option('--json', "print the job's status as JSON")
    .action(async (text: string, flags: NewFlags) => {
      const name = parseName(text)
      const baseWorkspaceId = flags.base === undefined ? undefined : parseName(flags.base)
      const { runJob } = await import('../run/run-job.ts')
      const noSleep = flags.sleep ? undefined : true
      const options = { ...sandboxOptions(flags), name, workspaceId: name, baseWorkspaceId, persistent: true, noSleep }
      done(await runJob(cli, { script: 'true', options, files: [], detach: false }))
    })
}
