import { Command } from 'commander'
import type { CommandDefinition } from '../cli.ts'
import { awaitRunning } from '../run/await-running.ts'
import { openSession } from '../server/session.ts'
import { parseName } from '../workspaces/version-reference.ts'

interface ForkFlags {
  readonly name?: string
  readonly workspace?: string
}

export const forkCommand: CommandDefinition = (cli, done) =>
  new Command('fork')
    .summary('copy a running sandbox')
    .description('Starts another sandbox as this one is now: files, and in a virtual machine memory and running programs too. Prints the id of the copy.')
    .argument('<id>', 'id, name or workspace of the job')
    .option('-n, --name <name>', 'name of the copy')
    .option('-w, --workspace <name>', 'save the copy as this new workspace', parseName)
    .option('--json', "print the copy's status as JSON")
    .action(async (id: string, flags: ForkFlags) => {
      const options = { name: flags.name, workspaceId: flags.workspace, signal: cli.interrupts.requested }
      const { mags, first: copy } = await openSession(cli, (client) => client.fork(id, options))
      const status = await awaitRunning(cli, mags, copy.requestId)
      if (cli.output.json) await cli.output.data({ ...status, with_memory: copy.with_memory })
      else await cli.output.out(`${copy.requestId}\n`)
      if (!copy.withMemory) await cli.output.aside('files were copied; programs of the original do not run in the copy')
      done(0)
    })
