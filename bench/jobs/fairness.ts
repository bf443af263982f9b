import { setTimeout as delay } from 'node:timers/promises'
import type { Database } from '../../packages/server/src/state/database.ts'
import { startDaemon } from '../../tests/kit/daemon.ts'
import { BenchClient } from '../kit/client.ts'
import { median, type Row, summarize } from '../kit/statistics.ts'
import { atOnce, createJob, firstByteOf, until } from './api.ts'
import { addAccount, openDatabaseOf } from './daemon-database.ts'

const crowd = 'local'
const clients = 32

export interface Crowd {
  readonly name: string
  readonly script: string
  readonly jobs: number
  /** How many jobs of the other account are tried; fewer when the crowd is done before. */
  readonly tries: number
  readonly pauseMs: number
  /** Whether to see the crowd through: its throughput. */
  readonly toTheEnd: boolean
  readonly environment: Record<string, string>
}

/** How long a job of one account waits while another has many in the queue: from its being accepted to its first byte. */
export async function measureFairness(options: Crowd): Promise<{ row: Row; words: string }> {
  await using daemon = await startDaemon({ MAGS_ISOLATION: 'container', ...options.environment })
  await using database = await openDatabaseOf(daemon)
  const [crowded, other] = [new BenchClient(daemon), new BenchClient({ url: daemon.url, token: await addAccount(database, 'other') })]
  try {
    await firstByteOf(other, { script: 'echo hi' })
    const begin = performance.now()
    await atOnce(options.jobs, clients, async () => void (await createJob(crowded, { script: options.script, timeout: 600 })))
    const acceptMs = performance.now() - begin
    const waiting = await countOf(database, ['pending'])

    const samples: number[] = []
    const overtaken: number[] = []
    let failures = 0
    let left = waiting
    while (samples.length + failures < options.tries) {
      try {
        const { id, firstByteMs } = await firstByteOf(other, { script: 'echo hi' })
        const pending = await countOf(database, ['pending'])
        // One that came when nobody waited any more says nothing.
        if (pending === 0) break
        left = pending
        samples.push(firstByteMs)
        overtaken.push(await startedMeanwhile(database, id))
      } catch (error) {
        failures++
        process.stderr.write(`${options.name}: ${error}\n`)
      }
      await delay(options.pauseMs)
    }
    const words = [
      `${options.name}: ${options.jobs} jobs accepted in ${(acceptMs / 1000).toFixed(1)} s, ${waiting} of them waited when the first of the other account came, ${left} when the last was done.`,
      `Jobs of the crowd that started between one being accepted and its start: median ${median(overtaken)}, most ${Math.max(...overtaken)}.`,
    ]
    if (options.toTheEnd) {
      await until(async () => ((await countOf(database, ['pending', 'running'])) === 0 ? true : undefined), 50, 600_000)
      const seconds = (performance.now() - begin) / 1000
      const done = await countOf(database, ['completed'])
      words.push(`All: ${done} of ${options.jobs} completed, ${(done / seconds).toFixed(1)} jobs/s from the first submit on.`)
    }
    return { row: summarize(options.name, samples, failures), words: words.join(' ') }
  } finally {
    crowded.close()
    other.close()
  }
}

async function countOf(database: Database, statuses: readonly ('pending' | 'running' | 'completed')[]): Promise<number> {
  const query = database.selectFrom('jobs').select(({ fn }) => fn.countAll<number>().as('count'))
  return (await query.where('account_id', '=', crowd).where('status', 'in', statuses).executeTakeFirstOrThrow()).count
}

async function startedMeanwhile(database: Database, id: string): Promise<number> {
  const { created_at: from, started_at: to } = await database
    .selectFrom('jobs')
    .select(['created_at', 'started_at'])
    .where('request_id', '=', id)
    .executeTakeFirstOrThrow()
  const query = database.selectFrom('jobs').select(({ fn }) => fn.countAll<number>().as('count'))
  const counted = query
    .where('account_id', '=', crowd)
    .where('started_at', '>', from)
    .where('started_at', '<', to ?? from)
  return (await counted.executeTakeFirstOrThrow()).count
}
