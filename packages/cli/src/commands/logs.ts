import type { LogRowWire, Mags } from '@mags/sdk'
import { Command, Option } from 'commander'
import type { Cli, CommandDefinition } from '../cli.ts'
import { writeRow } from '../run/write-row.ts'
import { reconnect } from '../server/reconnect.ts'
import { openSession } from '../server/session.ts'

interface LogsFlags {
  readonly follow?: boolean
  readonly source?: 'stdout' | 'stderr' | 'system'
}

/** What an id means to the command, and which log that is. */
interface LogsOf {
  readonly argument: string
  readonly requestIdOf: (mags: Mags, id: string, signal: AbortSignal) => Promise<string>
}

const magsJobs: LogsOf = {
  argument: 'id, name or workspace of the job',
  requestIdOf: async (mags, id, signal) => (await mags.status(id, { signal })).requestId,
}

export const logsCommand: CommandDefinition = (cli, done) => logsOf(cli, done, magsJobs)

export const logsOf = (cli: Cli, done: Parameters<CommandDefinition>[1], of: LogsOf): Command =>
  new Command('logs')
    .summary("show a job's output")
    .description("Shows a job's output: standard output and standard error apart, as the script wrote them.")
    .argument('<id>', of.argument)
    .option('-f, --follow', 'go on until the job ends')
    .addOption(new Option('--source <source>', 'only this').choices(['stdout', 'stderr', 'system']))
    .option('--json', 'print the answer of the API; with -f one row a line')
    .action(async (id: string, flags: LogsFlags) => {
      const signal = cli.interrupts.requested
      // A name may get a new job while we read; its request id stays.
      const { mags, first: requestId } = await openSession(cli, (client) => of.requestIdOf(client, id, signal))
      await (flags.follow ? follow : show)(cli, mags, requestId, flags.source)
      done(0)
    })

async function follow(cli: Cli, mags: Mags, requestId: string, source: LogsFlags['source']): Promise<void> {
  const signal = cli.interrupts.requested
  for await (const { cursor: _cursor, ...row } of mags.followLogs(requestId, { source, signal, onDisconnect: reconnect(cli) })) {
    await (cli.output.json ? cli.output.data(row) : writeRow(cli.output, row))
  }
}

const pageRows = 10_000

async function show(cli: Cli, mags: Mags, requestId: string, source: LogsFlags['source']): Promise<void> {
  const signal = cli.interrupts.requested
  const collected: LogRowWire[] = []
  let next: string | undefined
  for await (const page of pages(mags, requestId, source, signal)) {
    next = page.next
    for (const row of page.logs) {
      if (cli.output.json) collected.push(row)
      else await writeRow(cli.output, row)
    }
  }
  if (cli.output.json) await cli.output.data({ logs: collected, next })
}

async function* pages(mags: Mags, id: string, source: LogsFlags['source'], signal: AbortSignal) {
  let after: string | undefined
  for (;;) {
    const page = await mags.logs(id, { source, after, limit: pageRows, signal })
    yield page
    // A page may be shorter than asked for; the end is where nothing follows.
    if (page.next === after || page.logs.length === 0) return
    after = page.next
  }
}
