import type { CreateJobOptions } from '@mags/sdk'
import { Command, Option } from 'commander'
import type { Cli, CommandDefinition } from '../cli.ts'
import { usageError } from '../exit/cli-error.ts'
import { openSession } from '../server/session.ts'
import { parseName } from '../workspaces/version-reference.ts'
import { commandWords } from './command-words.ts'
import { environmentEntry, wholeNumber } from './flag-values.ts'
import { logsOf } from './logs.ts'
import { jsonToo, type PageFlags, paged, sayMore } from './paging.ts'
import { addEgressFlags, type EgressFlags, egressOption } from './sandbox-flags.ts'

type Done = Parameters<CommandDefinition>[1]

interface CreateFlags extends EgressFlags {
  readonly name: string
  readonly description?: string
  readonly vcpus?: number
  readonly memory?: number
  readonly env?: Record<string, string>
  readonly stateful?: boolean
  readonly workspace?: string
  readonly workspaceSize?: number
  readonly persist?: boolean
  readonly ipLease?: boolean
  readonly port?: number
  readonly image?: string
  readonly isolation?: CreateJobOptions['isolation']
  readonly timeout?: number
  readonly retries?: number
  readonly backoff?: number
  readonly priority?: number
  readonly scriptFile?: string
  readonly follow?: boolean
}

export const jobCommand: CommandDefinition = (cli, done) => {
  const command = new Command('job')
    .enablePositionalOptions()
    .summary('jobs that are defined once and run any number of times')
    .description(
      "Jobs of the Jobs API: defined once, run any number of times, with retries, priorities and a '/workspace' that is kept. For a script at once see 'mags run'.",
    )
  for (const define of [create, run, list, show, status, logs, runs, cancel, ssh, remove]) command.addCommand(define(cli, done))
  return command
}

function create(cli: Cli, done: Done): Command {
  return addEgressFlags(
    jsonToo(
      new Command('create')
        .summary('define a job and begin its first run')
        .description("Defines a job, begins its first run, and prints its id: mags job create -n train --retries 3 './train.sh'.")
        .argument('[script...]', 'shell script; several words are joined by spaces')
        .requiredOption('-n, --name <name>', 'its name')
        .option('--description <text>', 'what it is for')
        .option('--vcpus <count>', 'virtual CPUs (2)', wholeNumber(1))
        .option('--memory <MB>', 'memory (512)', wholeNumber(1))
        .option('--env <NAME=VALUE>', 'environment variable, repeatable; NAME alone passes yours on', environmentEntry(cli.env))
        .option('--stateful', 'keep /workspace from run to run')
        .option('-w, --workspace <name>', 'whose /workspace (needs --stateful; default its own)', parseName)
        .option('--workspace-size <GB>', 'its disk (10)', wholeNumber(1))
        .option('-p, --persist', 'keep the sandbox after the script')
        .option('--ip-lease', 'an address of its own')
        .option('--port <port>', 'port that its URL reaches (8080)', wholeNumber(1, 65_535))
        .option('--image <name>', 'image of the sandbox')
        .addOption(new Option('--isolation <wall>', 'which wall: auto, vm or container').choices(['auto', 'vm', 'container']))
        .option('-t, --timeout <seconds>', 'end a try after this long', wholeNumber(1))
        .option('--retries <count>', 'tries after a failed one (0)', wholeNumber(0, 10))
        .option('--backoff <seconds>', 'before the first of them; twice as long before each further one (5)', wholeNumber(1))
        .option('--priority <number>', 'higher ones start first (0)', priority)
        .option('--script-file <file>', 'read the script from a file')
        .option('-f, --follow', 'show its output, and end with its exit code'),
    ),
  ).action(async (words: string[], flags: CreateFlags) => {
    const { readScript } = await import('../run/read-script.ts')
    const { script } = await readScript(cli, { words, file: flags.scriptFile, url: undefined, command: 'job create' })
    const options = { ...optionsOf(flags), script, signal: cli.interrupts.requested }
    const { mags, first: answer } = await openSession(cli, (client) => client.jobs.create(options))
    for (const warning of answer.warnings ?? []) await cli.output.note(`warning: ${warning}`)
    const { showRun } = await import('../jobs/show-run.ts')
    done(await showRun(cli, mags, { id: answer.request_id, answer, follow: flags.follow === true }))
  })
}

function optionsOf(flags: CreateFlags): Omit<CreateJobOptions, 'script'> {
  if (flags.workspace !== undefined && !flags.stateful) throw usageError('--workspace needs --stateful: another job keeps nothing.')
  if (flags.workspaceSize !== undefined && !flags.stateful) throw usageError('--workspace-size needs --stateful: another job keeps nothing.')
  const { name, description, vcpus, stateful, persist, ipLease, image, isolation, timeout, priority } = flags
  return {
    ...{ name, description, vcpus, stateful, persist, ipLease, image, isolation, timeout, priority },
    memoryMb: flags.memory,
    environment: flags.env,
    workspaceId: flags.workspace,
    workspaceSizeGb: flags.workspaceSize,
    proxyPort: flags.port,
    maxRetries: flags.retries,
    retryBackoffSeconds: flags.backoff,
    egress: egressOption(flags),
  }
}

function run(cli: Cli, done: Done): Command {
  return jsonToo(named(new Command('run').summary('run a job once more, and print the id of the run')))
    .option('--env <NAME=VALUE>', 'over what the job has, repeatable; NAME alone passes yours on', environmentEntry(cli.env))
    .option('-f, --follow', 'show its output, and end with its exit code')
    .action(async (id: string, flags: { readonly env?: Record<string, string>; readonly follow?: boolean }) => {
      const { mags, first: answer } = await openSession(cli, (client) => client.jobs.run(id, { environment: flags.env, signal: cli.interrupts.requested }))
      const { showRun } = await import('../jobs/show-run.ts')
      done(await showRun(cli, mags, { id: answer.id, answer, follow: flags.follow === true }))
    })
}

function list(cli: Cli, done: Done): Command {
  return paged(new Command('list').alias('ls').summary('list jobs, newest first'), 'jobs')
    .option('--template <id>', 'only those that were made from this template (id or name)')
    .action(async ({ page, pageSize, template }: PageFlags & { readonly template?: string }) => {
      const signal = cli.interrupts.requested
      const { listOfTemplate } = await import('../jobs/list-of-template.ts')
      const { first: answer } = await openSession(cli, (mags) =>
        template === undefined ? mags.jobs.list({ page, pageSize, signal }) : listOfTemplate(mags, template, { page, pageSize, signal }),
      )
      const { jobTable } = await import('../jobs/describe-job.ts')
      await (cli.output.json ? cli.output.data(answer) : cli.output.out(jobTable(answer.jobs)))
      await sayMore(cli, answer, answer.jobs.length)
      done(0)
    })
}

function show(cli: Cli, done: Done): Command {
  return jsonToo(named(new Command('show').summary('show how a job is defined'))).action(async (id: string) => {
    const { first: job } = await openSession(cli, (mags) => mags.jobs.details(id, { signal: cli.interrupts.requested }))
    const { describeJob } = await import('../jobs/describe-job.ts')
    await (cli.output.json ? cli.output.data(job) : cli.output.out(describeJob(job)))
    done(0)
  })
}

function status(cli: Cli, done: Done): Command {
  return jsonToo(named(new Command('status').summary('show how the newest run of a job, or one run, stands'))).action(async (id: string) => {
    const { first: answer } = await openSession(cli, (mags) => mags.jobs.status(id, { signal: cli.interrupts.requested }))
    const { describeJobStatus } = await import('../jobs/describe-job.ts')
    await (cli.output.json ? cli.output.data(answer) : cli.output.out(describeJobStatus(answer)))
    done(0)
  })
}

function logs(cli: Cli, done: Done): Command {
  return logsOf(cli, done, {
    argument: 'id of a job or of a run, or the name of a job',
    requestIdOf: async (mags, id, signal) => (await mags.jobs.status(id, { signal })).request_id,
  })
}

function runs(cli: Cli, done: Done): Command {
  return paged(named(new Command('runs').summary('list the runs of a job, newest first')), 'runs').action(async (id: string, { page, pageSize }: PageFlags) => {
    const { first: answer } = await openSession(cli, (mags) => mags.jobs.runs(id, { page, pageSize, signal: cli.interrupts.requested }))
    const { runTable } = await import('../jobs/describe-job.ts')
    await (cli.output.json ? cli.output.data(answer) : cli.output.out(runTable(answer.runs)))
    await sayMore(cli, answer, answer.runs.length)
    done(0)
  })
}

function cancel(cli: Cli, done: Done): Command {
  return jsonToo(named(new Command('cancel').summary('end a run; one that is over stays as it is'))).action(async (id: string) => {
    const { first: answer } = await openSession(cli, (mags) => mags.jobs.cancel(id, { signal: cli.interrupts.requested }))
    await (cli.output.json ? cli.output.data(answer) : cli.output.out(`${answer.message}\n`))
    done(0)
  })
}

function ssh(cli: Cli, done: Done): Command {
  return new Command('ssh')
    .summary('run one command in the sandbox of a job')
    .description(
      "Runs one command in the sandbox of a job that runs, and ends with its exit code. Flags come before the id. 'mags ssh <run id>' opens a shell in one that persists.",
    )
    .argument('<id>', 'id of a job or of a run, or the name of a job')
    .argument('<command...>', 'shell command; several words are joined by spaces')
    .option('-t, --timeout <seconds>', 'end the command after this long (30)', wholeNumber(1))
    .option('--json', 'print the answer of the API')
    .passThroughOptions()
    .action(async (id: string, given: string[], { timeout }: { readonly timeout?: number }) => {
      const command = commandWords(given, 'job ssh').join(' ')
      const options = { timeoutSeconds: timeout, signal: cli.interrupts.requested }
      const { first: answer } = await openSession(cli, (mags) => mags.jobs.ssh(id, command, options))
      if (cli.output.json) await cli.output.data(answer)
      else {
        await cli.output.out(answer.stdout)
        await cli.output.err(answer.stderr)
      }
      done(answer.exit_code)
    })
}

function remove(cli: Cli, done: Done): Command {
  return jsonToo(named(new Command('delete').alias('rm').summary('delete a job; a run that is not over is cancelled'))).action(async (id: string) => {
    const { first: answer } = await openSession(cli, (mags) => mags.jobs.delete(id, { signal: cli.interrupts.requested }))
    await (cli.output.json ? cli.output.data(answer) : cli.output.out(`${answer.message}\n`))
    done(0)
  })
}

const named = (command: Command) => command.argument('<id>', 'id of a job or of a run, or the name of a job')

function priority(text: string): number {
  const value = Number(text)
  if (/^-?\d+$/.test(text) && Math.abs(value) <= 100) return value
  throw usageError('--priority must be a whole number from -100 to 100.')
}
