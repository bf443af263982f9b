import type { UpdateTemplateOptions } from '@mags/sdk'
import { Command } from 'commander'
import type { Cli, CommandDefinition } from '../cli.ts'
import { usageError } from '../exit/cli-error.ts'
import { openSession } from '../server/session.ts'
import { environmentEntry, wholeNumber } from './flag-values.ts'
import { jsonToo, type PageFlags, paged, sayMore } from './paging.ts'

type Done = Parameters<CommandDefinition>[1]

interface TemplateFlags {
  readonly name?: string
  readonly description?: string
  readonly vcpus?: number
  readonly memory?: number
  readonly env?: Record<string, string>
  readonly comment?: string
  readonly scriptFile?: string
}

export const templateCommand: CommandDefinition = (cli, done) => {
  const command = new Command('template')
    .summary('jobs to be made again and again, with numbered revisions')
    .description('Templates of jobs. Each change is a numbered revision; each run is a job of its own.')
  for (const define of [create, update, run, list, show, revisions, history, remove]) command.addCommand(define(cli, done))
  return command
}

function create(cli: Cli, done: Done): Command {
  return fields(cli, new Command('create').summary('make a template').requiredOption('-n, --name <name>', 'its name')).action(
    async (words: string[], flags: TemplateFlags) => {
      const script = await scriptOf(cli, words, flags, 'template create')
      const options = { ...optionsOf(flags), name: flags.name ?? '', script, signal: cli.interrupts.requested }
      const { first: template } = await openSession(cli, (mags) => mags.templates.create(options))
      for (const warning of template.warnings ?? []) await cli.output.note(`warning: ${warning}`)
      await (cli.output.json ? cli.output.data(template) : cli.output.out(`${template.id}\n`))
      done(0)
    },
  )
}

function update(cli: Cli, done: Done): Command {
  const command = named(new Command('update').summary('change a template: a new revision')).option('-n, --name <name>', 'another name')
  return fields(cli, command).action(async (id: string, words: string[], flags: TemplateFlags) => {
    const script = words.length === 0 && flags.scriptFile === undefined ? {} : { script: await scriptOf(cli, words, flags, 'template update') }
    const changes: UpdateTemplateOptions = { ...optionsOf(flags), name: flags.name, ...script }
    if (Object.values(changes).every((value) => value === undefined)) throw usageError("Nothing to change. See 'mags template update --help'.")
    const { first: template } = await openSession(cli, (mags) => mags.templates.update(id, { ...changes, signal: cli.interrupts.requested }))
    await (cli.output.json ? cli.output.data(template) : cli.output.out(`${template.name} is at revision ${template.latest_revision.revision}\n`))
    done(0)
  })
}

function fields(cli: Cli, command: Command): Command {
  return jsonToo(command)
    .argument('[script...]', 'shell script; several words are joined by spaces')
    .option('--description <text>', 'what it is for')
    .option('--vcpus <count>', 'virtual CPUs of its jobs (2)', wholeNumber(1))
    .option('--memory <MB>', 'memory of its jobs (512)', wholeNumber(1))
    .option('--env <NAME=VALUE>', 'environment variable, repeatable; NAME alone passes yours on', environmentEntry(cli.env))
    .option('-m, --comment <text>', 'about this revision')
    .option('--script-file <file>', 'read the script from a file')
}

function optionsOf({ description, vcpus, memory, env, comment }: TemplateFlags) {
  return { description, vcpus, memoryMb: memory, environment: env, comment }
}

async function scriptOf(cli: Cli, words: readonly string[], flags: TemplateFlags, command: string): Promise<string> {
  const { readScript } = await import('../run/read-script.ts')
  return (await readScript(cli, { words, file: flags.scriptFile, url: undefined, command })).script
}

function run(cli: Cli, done: Done): Command {
  return jsonToo(named(new Command('run').summary('make a job of the newest revision, and print the id of its run')))
    .option('--env <NAME=VALUE>', 'over what the template has, repeatable; NAME alone passes yours on', environmentEntry(cli.env))
    .option('-f, --follow', 'show its output, and end with its exit code')
    .action(async (id: string, flags: { readonly env?: Record<string, string>; readonly follow?: boolean }) => {
      const options = { environment: flags.env, signal: cli.interrupts.requested }
      const { mags, first: answer } = await openSession(cli, (client) => client.templates.run(id, options))
      const { showRun } = await import('../jobs/show-run.ts')
      done(await showRun(cli, mags, { id: answer.id, answer, follow: flags.follow === true }))
    })
}

function list(cli: Cli, done: Done): Command {
  return paged(new Command('list').alias('ls').summary('list templates, newest first'), 'templates').action(async ({ page, pageSize }: PageFlags) => {
    const { first: answer } = await openSession(cli, (mags) => mags.templates.list({ page, pageSize, signal: cli.interrupts.requested }))
    const { templateTable } = await import('../jobs/describe-job.ts')
    await (cli.output.json ? cli.output.data(answer) : cli.output.out(templateTable(answer.templates)))
    await sayMore(cli, answer, answer.templates.length)
    done(0)
  })
}

function show(cli: Cli, done: Done): Command {
  return jsonToo(named(new Command('show').summary('show a template as it is now'))).action(async (id: string) => {
    const { first: template } = await openSession(cli, (mags) => mags.templates.get(id, { signal: cli.interrupts.requested }))
    const { describeTemplate } = await import('../jobs/describe-job.ts')
    await (cli.output.json ? cli.output.data(template) : cli.output.out(describeTemplate(template)))
    done(0)
  })
}

function revisions(cli: Cli, done: Done): Command {
  return paged(named(new Command('revisions').summary('list what a template was, newest first')), 'revisions').action(
    async (id: string, { page, pageSize }: PageFlags) => {
      const { first: answer } = await openSession(cli, (mags) => mags.templates.revisions(id, { page, pageSize, signal: cli.interrupts.requested }))
      const { revisionTable } = await import('../jobs/describe-job.ts')
      await (cli.output.json ? cli.output.data(answer) : cli.output.out(revisionTable(answer.revisions)))
      await sayMore(cli, answer, answer.revisions.length)
      done(0)
    },
  )
}

function history(cli: Cli, done: Done): Command {
  return paged(named(new Command('history').summary('list the jobs of a template; of one that was deleted by its id')), 'jobs').action(
    async (id: string, { page, pageSize }: PageFlags) => {
      const { listOfTemplate } = await import('../jobs/list-of-template.ts')
      const { first: answer } = await openSession(cli, (mags) => listOfTemplate(mags, id, { page, pageSize, signal: cli.interrupts.requested }))
      const { jobTable } = await import('../jobs/describe-job.ts')
      await (cli.output.json ? cli.output.data(answer) : cli.output.out(jobTable(answer.jobs)))
      await sayMore(cli, answer, answer.jobs.length)
      done(0)
    },
  )
}

function remove(cli: Cli, done: Done): Command {
  return jsonToo(named(new Command('delete').alias('rm').summary('delete a template; its jobs stay'))).action(async (id: string) => {
    const { first: answer } = await openSession(cli, (mags) => mags.templates.delete(id, { signal: cli.interrupts.requested }))
    await (cli.output.json ? cli.output.data(answer) : cli.output.out(`${answer.message}\n`))
    done(0)
  })
}

const named = (command: Command) => command.argument('<id>', 'id or name of the template')
