import type { PoolStatusWire } from '@mags/sdk'
import { Command } from 'commander'
import type { CommandDefinition } from '../cli.ts'
import { openSession } from '../server/session.ts'
import { printable } from '../terminal/output.ts'

export const poolCommand: CommandDefinition = (cli, done) =>
  new Command('pool')
    .alias('pool-status')
    .summary('show the sandboxes of the server')
    .description('Shows the sandboxes of the server: ready, in use, asleep.')
    .option('--json', 'print the answer of the API')
    .action(async () => {
      const { first: pool } = await openSession(cli, (mags) => mags.poolStatus({ signal: cli.interrupts.requested }))
      if (cli.output.json) await cli.output.data(pool)
      else await cli.output.out(describePoolStatus(pool))
      done(0)
    })

export function describePoolStatus(pool: PoolStatusWire): string {
  const wall = pool.isolation === 'container' ? "container (shares the host's kernel)" : pool.isolation
  const rows: [string, string | null | undefined][] = [
    ['isolation', wall],
    ['idle', String(pool.idle_vms)],
    ['busy', String(pool.busy_vms)],
    ['sleeping', String(pool.sleeping_vms)],
    ['total', String(pool.total_vms)],
    ['minimum', String(pool.min_pool_size)],
    ['maximum', pool.max_pool_size === 0 ? 'as many as CPU and memory allow' : String(pool.max_pool_size)],
    ['hit rate', `${Math.round(pool.hit_rate * 100)} %`],
    ['failure', pool.last_failure],
  ]
  return rows.flatMap(([name, value]) => (value == null ? [] : [`${`${name}:`.padEnd(11)}${printable(value)}\n`])).join('')
}
