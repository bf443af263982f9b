import type { BenchClient } from '../kit/client.ts'
import { type Row, summarize } from '../kit/statistics.ts'

/** All at once: time of each until its end; the row's max is when all were done. */
export async function burst(client: BenchClient, jobs: number): Promise<Row> {
  const results = await Promise.allSettled(Array.from({ length: jobs }, () => client.firstByte({ script: 'echo hi' })))
  const ends = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value.endMs] : []))
  return summarize(`${jobs} at once, submit → end`, ends, jobs - ends.length)
}
