import type { CronOptions, Mags } from '@mags/sdk'
import { Command, Option } from 'commander'
import type { Cli, CommandDefinition } from '../cli.ts'
import { usageError } from '../exit/cli-error.ts'
import { openSession } from '../server/session.ts'
import { parseName } from '../workspaces/version-reference.ts'
import { repeatable, wholeNumber } from './flag-values.ts'
import { jsonToo, type PageFlags, paged, sayMore } from './paging.ts'
import { addSandboxFlags, type SandboxFlags, sandboxOptions } from './sandbox-flags.ts'

type Done = Parameters<CommandDefinition>[1]

interface AddFlags extends SandboxFlags {
  readonly name: string
  readonly schedule: string
  readonly timezone?: string
  readonly overlap?: 'skip' | 'queue' | 'allow'
  readonly disabled?: boolean
  readonly workspace?: string
  readonly base?: string
  readonly persistent?: boolean
  readonly startupCommand?: string
  readonly sleep: boolean
  readonly timeout?: number
  readonly file?: readonly string[]
  readonly scriptFile?: string
  readonly scriptUrl?: string
}

export const cronCommand: CommandDefinition = (cli, done) => {
  const command = new Command('cron').summary('run scripts at set times').description('Scripts that run at set times, each run a job of its own.')
  for (const define of [add, list, remove, enable, disable, run, runs]) command.addCommand(define(cli, done))
  return command
}

function add(cli: Cli, done: Done): Command {
  const command = new Command('add')
    .summary('run a script at set times')
    .description(
      "Runs a shell script at set times: mags cron add --name nightly --schedule '0 3 * * *' -w proj './build.sh'. What else is given is as for 'mags run'.",
    )
    .argument('[script...]', 'shell script; several words are joined by spaces')
    .requiredOption('-n, --name <name>', 'its name')
    .requiredOption(
      '-s, --schedule <times>',
      "minute, hour, day of month, month and day of week, such as '0 3 * * *'; or @hourly, @daily, @weekly, @monthly, @yearly",
    )
    .option('--timezone <zone>', 'where the clock hangs, such as Europe/Berlin (UTC)')
    .addOption(new Option('--overlap <rule>', 'when a run is due while another is not over (skip)').choices(['skip', 'queue', 'allow']))
    .option('--disabled', 'do not run it yet')
    .option('-w, --workspace <name>', 'restored before and saved after each run', parseName)
    .option('--base <workspace>', 'begin each run as this workspace is, which is not changed', parseName)
    .option('-p, --persistent', 'keep the sandbox of a run')
    .option('-f, --file <path>', 'upload a file and put it into /root, repeatable', repeatable)
    .option('-t, --timeout <seconds>', 'end a run after this long (300; none with -p)', wholeNumber(1))
  return addSandboxFlags(command, cli)
    .option('--startup-command <command>', 'run when a sleeping sandbox wakes without its processes')
    .option('--no-sleep', 'never put to sleep (needs -p)')
    .option('--script-file <file>', 'read the script from a file')
    .option('--script-url <address>', 'let the server fetch the script, for each run')
    .option('--json', 'print the answer of the API')
    .action(async (words: string[], flags: AddFlags) => {
      if (!flags.sleep && !flags.persistent) throw usageError('--no-sleep needs --persistent: another sandbox ends with its script.')
      const { readScript } = await import('../run/read-script.ts')
      const { addCron } = await import('../cron/add-cron.ts')
      const files = flags.file ?? []
      if (files.length > 0) (await import('../run/check-files.ts')).checkFiles(files)
      const { script, type } = await readScript(cli, { words, file: flags.scriptFile, url: flags.scriptUrl, command: 'cron add' })
      const cron = await addCron(cli, { ...optionsOf(flags), script, type }, files)
      if (cli.output.json) await cli.output.data(cron)
      else await cli.output.out(cron.next_run_at === null ? `${cron.name} is disabled\n` : `${cron.name} runs next at ${cron.next_run_at}\n`)
      done(0)
    })
}

function optionsOf(flags: AddFlags): Omit<CronOptions, 'script'> {
  return {
    ...sandboxOptions(flags),
    name: flags.name,
    schedule: flags.schedule,
    timezone: flags.timezone,
    overlap: flags.overlap,
    enabled: flags.disabled ? false : undefined,
    workspaceId: flags.workspace,
    baseWorkspaceId: flags.base,
    persistent: flags.persistent,
    startupCommand: flags.startupCommand,
    timeout: flags.timeout,
    noSleep: flags.sleep ? undefined : true,
  }
}

function list(cli: Cli, done: Done): Command {
  return paged(new Command('list').alias('ls').summary('list crons, newest first'), 'crons').action(async ({ page, pageSize }: PageFlags) => {
    const { first: answer } = await openSession(cli, (mags) => mags.cronList({ page, pageSize, signal: cli.interrupts.requested }))
    const { cronTable } = await import('../cron/describe-cron.ts')
    await (cli.output.json ? cli.output.data(answer) : cli.output.out(cronTable(answer.crons)))
    await sayMore(cli, answer, answer.crons.length)
    done(0)
  })
}

function runs(cli: Cli, done: Done): Command {
  return paged(named(new Command('runs').summary('show what became of the last hundred runs, newest first')), 'runs').action(
    async (name: string, { page, pageSize }: PageFlags) => {
      const { first: answer } = await openSession(cli, (mags) => mags.cronRuns(name, { page, pageSize, signal: cli.interrupts.requested }))
      const { runTable } = await import('../cron/describe-cron.ts')
      await (cli.output.json ? cli.output.data(answer) : cli.output.out(runTable(answer.runs)))
      await sayMore(cli, answer, answer.runs.length)
      done(0)
    },
  )
}

function remove(cli: Cli, done: Done): Command {
  return simple(cli, done, named(new Command('remove').alias('rm').summary('remove a cron and its history; jobs it started go on')), async (mags, name) => {
    const answer = await mags.cronDelete(name, { signal: cli.interrupts.requested })
    return { answer, words: answer.message }
  })
}

function enable(cli: Cli, done: Done): Command {
  return simple(cli, done, named(new Command('enable').summary('let a disabled cron run again')), async (mags, name) => {
    const answer = await mags.cronUpdate(name, { enabled: true, signal: cli.interrupts.requested })
    return { answer, words: `${answer.name} runs next at ${answer.next_run_at}` }
  })
}

function disable(cli: Cli, done: Done): Command {
  return simple(cli, done, named(new Command('disable').summary('keep a cron, and run it no more')), async (mags, name) => {
    const answer = await mags.cronUpdate(name, { enabled: false, signal: cli.interrupts.requested })
    return { answer, words: `${answer.name} is disabled` }
  })
}

function run(cli: Cli, done: Done): Command {
  return jsonToo(named(new Command('run').summary('run a cron now, also a disabled one, and print the id of the job'))).action(async (name: string) => {
    const { first: answer } = await openSession(cli, (mags) => mags.cronRun(name, { signal: cli.interrupts.requested }))
    const { request_id: id, status, reason } = answer
    if (cli.output.json) await cli.output.data(answer)
    else if (id !== null) await cli.output.out(`${id}\n`)
    if (id === null) await cli.output.note(`the run ${said[status] ?? 'has not started yet'}${reason === null ? '' : `: ${reason}`}`)
    done(status === 'skipped' || status === 'failed' ? 1 : 0)
  })
}

const said: Readonly<Record<string, string>> = { waiting: 'waits', skipped: 'was skipped', failed: 'could not start' }

/** A command about one cron that prints one line. */
function simple(cli: Cli, done: Done, command: Command, act: (mags: Mags, name: string) => Promise<{ answer: unknown; words: string }>): Command {
  return jsonToo(command).action(async (name: string) => {
    const { first } = await openSession(cli, (mags) => act(mags, name))
    await (cli.output.json ? cli.output.data(first.answer) : cli.output.out(`${first.words}\n`))
    done(0)
  })
}

const named = (command: Command) => command.argument('<name>', 'name or id of the cron')
