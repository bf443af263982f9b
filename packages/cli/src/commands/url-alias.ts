import { Command } from 'commander'
import type { Cli, CommandDefinition } from '../cli.ts'
import { usageError } from '../exit/cli-error.ts'
import { openSession } from '../server/session.ts'
import { table } from '../terminal/table.ts'
import { parseName } from '../workspaces/version-reference.ts'
import { type PageFlags, paged, sayMore } from './paging.ts'

type Done = Parameters<CommandDefinition>[1]

/** `mags url alias`: makes one; its own sub-commands list and remove them. */
export const urlAliasCommand: CommandDefinition = (cli, done) =>
  new Command('alias')
    .summary('give a workspace a name on the web that stays')
    .description(
      "Makes SUBDOMAIN.<apps domain> lead to whatever job has the workspace. 'mags url alias list' shows them, 'mags url alias remove' takes one away.",
    )
    .argument('[subdomain]', 'the name: a-z 0-9 -')
    .argument('[workspace]', 'where it leads')
    .option('--domain <host>', 'a host name of your own that leads there, too')
    .option('--json', 'print the answer of the API')
    .addCommand(list(cli, done))
    .addCommand(remove(cli, done))
    .action(async (subdomain: string | undefined, workspace: string | undefined, { domain }: { domain?: string }) => {
      if (subdomain === undefined || workspace === undefined)
        throw usageError("Name both: 'mags url alias SUBDOMAIN WORKSPACE'. 'mags url alias list' shows those there are.")
      const name = parseName(workspace)
      const { first: alias } = await openSession(cli, (mags) => mags.urlAliasCreate(subdomain, name, { domain, signal: cli.interrupts.requested }))
      if (cli.output.json) await cli.output.data(alias)
      else await cli.output.out(`${alias.url ?? alias.subdomain}\n`)
      done(0)
    })

function list(cli: Cli, done: Done): Command {
  return paged(new Command('list').alias('ls').summary('list aliases, newest first'), 'aliases').action(async ({ page, pageSize }: PageFlags) => {
    const { first: answer } = await openSession(cli, (mags) => mags.urlAliasList({ page, pageSize, signal: cli.interrupts.requested }))
    if (cli.output.json) await cli.output.data(answer)
    else {
      const rows = answer.aliases.map((alias) => [alias.subdomain, alias.workspace_id, alias.domain ?? '-', alias.url ?? '-', alias.created_at])
      await cli.output.out(table(['SUBDOMAIN', 'WORKSPACE', 'DOMAIN', 'URL', 'CREATED'], rows))
      await sayMore(cli, answer, answer.aliases.length)
    }
    done(0)
  })
}

function remove(cli: Cli, done: Done): Command {
  return new Command('remove')
    .alias('rm')
    .summary('take an alias away; its name is free at once')
    .argument('<subdomain>', 'the name')
    .option('--json', 'print the answer of the API')
    .action(async (subdomain: string) => {
      const { first: answer } = await openSession(cli, (mags) => mags.urlAliasDelete(subdomain, { signal: cli.interrupts.requested }))
      await (cli.output.json ? cli.output.data(answer) : cli.output.out(`${answer.message}\n`))
      done(0)
    })
}
