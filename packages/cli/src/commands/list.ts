import type { JobState } from '@mags/sdk'
import { Command, Option } from 'commander'
import type { CommandDefinition } from '../cli.ts'
import { openSession } from '../server/session.ts'
import { table } from '../terminal/table.ts'
import { wholeNumber } from './flag-values.ts'

interface ListFlags {
  readonly page?: number
  readonly pageSize?: number
  readonly status?: JobState
  readonly json?: boolean
}

export const listCommand: CommandDefinition = (cli, done) =>
  new Command('list')
    .alias('ls')
    .summary('list jobs, newest first')
    .description('Lists jobs, newest first.')
    .option('--page <number>', 'which page, from 1', wholeNumber(1))
    .option('--page-size <count>', 'jobs on a page (20)', wholeNumber(1, 100))
    .addOption(new Option('--status <status>', 'only these').choices(['pending', 'running', 'completed', 'error', 'sleeping', 'stopped']))
    .option('--json', 'print the answer of the API')
    .action(async ({ page, pageSize, status }: ListFlags) => {
      const signal = cli.interrupts.requested
      const { first: answer } = await openSession(cli, (mags) => mags.list({ page, pageSize, status, signal }))
      if (cli.output.json) await cli.output.data(answer)
      else {
        const rows = answer.jobs.map((job) => {
          const exit = job.exit_code === null ? '-' : String(job.exit_code)
          return [job.name, job.status, exit, job.workspace_id ?? '-', job.request_id, job.created_at]
        })
        await cli.output.out(table(['NAME', 'STATUS', 'EXIT', 'WORKSPACE', 'ID', 'CREATED'], rows))
        const shown = (answer.page - 1) * answer.page_size + answer.jobs.length
        if (shown < answer.total) await cli.output.aside(`${answer.jobs.length} of ${answer.total}; --page ${answer.page + 1} shows the next`)
      }
      done(0)
    })
