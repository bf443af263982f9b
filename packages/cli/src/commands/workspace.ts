import { Command } from 'commander'
import type { Cli, CommandDefinition } from '../cli.ts'
import { openSession } from '../server/session.ts'
import { confirm } from '../terminal/confirm.ts'
import { formatBytes } from '../terminal/format-bytes.ts'
import { describeDiff } from '../workspaces/describe-diff.ts'
import { describeWorkspace, versionTable, workspaceTable } from '../workspaces/describe-workspace.ts'
import { parseDiff, parseName, parseReference, parseVersion } from '../workspaces/version-reference.ts'
import { wholeNumber } from './flag-values.ts'
import { jsonToo, type PageFlags, paged, sayMore } from './paging.ts'

type Done = Parameters<CommandDefinition>[1]

export const workspaceCommand: CommandDefinition = (cli, done) => {
  const command = new Command('workspace')
    .alias('ws')
    .summary('list, fork, compare, restore and delete workspaces')
    .description('Workspaces: file systems that are kept.')
  for (const define of [list, get, versions, diff, fork, restore, remove]) command.addCommand(define(cli, done))
  return command
}

function list(cli: Cli, done: Done): Command {
  return paged(new Command('list').alias('ls').summary('list workspaces, newest first'), 'workspaces').action(async (flags: PageFlags) => {
    const { first: answer } = await openSession(cli, (mags) => mags.listWorkspaces({ ...pageOf(flags), signal: cli.interrupts.requested }))
    await show(cli, answer, () => workspaceTable(answer.workspaces))
    await sayMore(cli, answer, answer.workspaces.length)
    done(0)
  })
}

function get(cli: Cli, done: Done): Command {
  return jsonToo(new Command('get').summary('show one workspace').argument('<name>', 'the workspace')).action(async (text: string) => {
    const name = parseName(text)
    const { first: answer } = await openSession(cli, (mags) => mags.getWorkspace(name, { signal: cli.interrupts.requested }))
    await show(cli, answer, () => describeWorkspace(answer))
    done(0)
  })
}

function versions(cli: Cli, done: Done): Command {
  return paged(new Command('versions').summary('list what was saved, newest first').argument('<name>', 'the workspace'), 'versions').action(
    async (text: string, flags: PageFlags) => {
      const name = parseName(text)
      const { first: answer } = await openSession(cli, (mags) => mags.workspaceVersions(name, { ...pageOf(flags), signal: cli.interrupts.requested }))
      await show(cli, answer, () => versionTable(name, answer.versions))
      await sayMore(cli, answer, answer.versions.length)
      done(0)
    },
  )
}

function diff(cli: Cli, done: Done): Command {
  return jsonToo(new Command('diff').summary('show what differs between two versions'))
    .description("Shows what differs between two versions: 'diff proj' the newest two, 'diff proj@3' the third and the newest, 'diff proj@3 proj@5' these.")
    .argument('<from>', 'workspace, or one version of it')
    .argument('[to]', 'another version of the same; the newest unless given')
    .option('--content', 'also the changed lines of text files')
    .option('--limit <count>', 'most paths to show (1000)', wholeNumber(1, 100_000))
    .action(async (fromText: string, toText: string | undefined, { content, limit }: { content?: boolean; limit?: number }) => {
      const { name, from, to } = parseDiff(fromText, toText)
      const { first: answer } = await openSession(cli, (mags) => mags.diffWorkspace(name, { from, to, content, limit, signal: cli.interrupts.requested }))
      await show(cli, answer, () => describeDiff(answer))
      if (answer.differences.length === 0) await cli.output.aside(`${name}@${answer.from} and ${name}@${answer.to} are the same`)
      if (answer.truncated) await cli.output.note(`there are more than ${answer.differences.length} differences; --limit shows more`)
      done(0)
    })
}

function fork(cli: Cli, done: Done): Command {
  return jsonToo(new Command('fork').summary('make a workspace that begins as another is'))
    .argument('<from>', 'workspace, or one version of it such as proj@3')
    .argument('<new>', 'name of the new one')
    .action(async (fromText: string, newText: string) => {
      const { name, version } = parseReference(fromText)
      const newName = parseName(newText)
      const { first: answer } = await openSession(cli, (mags) => mags.forkWorkspace(name, newName, { version, signal: cli.interrupts.requested }))
      await show(cli, answer, () => `${newName} begins as ${fromText} (${formatBytes(answer.size_bytes)}, nothing copied)\n`)
      done(0)
    })
}

function restore(cli: Cli, done: Done): Command {
  return jsonToo(new Command('restore').summary('go back to an earlier version'))
    .description('Makes a new version with the contents of an earlier one. Nothing is lost: the versions between stay.')
    .argument('<version>', 'such as proj@3')
    .action(async (text: string) => {
      const { name, version } = parseVersion(text)
      const { first: answer } = await openSession(cli, (mags) => mags.restoreWorkspace(name, version, { signal: cli.interrupts.requested }))
      await show(cli, answer, () => `${name}@${answer.version} has the contents of ${name}@${version}\n`)
      done(0)
    })
}

function remove(cli: Cli, done: Done): Command {
  return jsonToo(new Command('delete').alias('rm').summary('delete a workspace with all its versions'))
    .description('Deletes a workspace with all its versions, also in the object store. Refused while a job has it.')
    .argument('<name>', 'the workspace')
    .option('-y, --yes', 'do not ask')
    .action(async (text: string, flags: { yes?: boolean }) => {
      const name = parseName(text)
      await confirm(cli, `Workspace '${name}' and all its versions will be deleted, without a way back.`, { yes: flags.yes === true })
      const { first: answer } = await openSession(cli, (mags) => mags.deleteWorkspace(name, { signal: cli.interrupts.requested }))
      await show(cli, answer, () => `${answer.message}\n`)
      done(0)
    })
}

function pageOf({ page, pageSize }: PageFlags) {
  return { page, pageSize }
}

async function show(cli: Cli, answer: unknown, words: () => string): Promise<void> {
  await (cli.output.json ? cli.output.data(answer) : cli.output.out(words()))
}
