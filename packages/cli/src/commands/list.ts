import type { JobState } from '@mags/sdk'
import { Command, Option } from 'commander'
import type { CommandDefinition } from '../cli.ts'
import { openSession } from '../server/session.ts'
import { table } from '../terminal/table.ts'
import { type PageFlags, paged, sayMore } from './paging.ts'

interface ListFlags extends PageFlags {
  readonly status?: JobState
  readonly json?: boolean
}

export const listCommand: CommandDefinition = (cli, done) =>
  paged(new Command('list').alias('ls').summary('list jobs, newest first').description('Lists jobs, newest first.'), 'jobs')
    .addOption(new Option('--status <status>', 'only these').choices(['pending', 'running', 'completed', 'error', 'sleeping', 'stopped']))
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
        await sayMore(cli, answer, answer.jobs.length)
      }
      done(0)
    })
