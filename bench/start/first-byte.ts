import { setTimeout as delay } from 'node:timers/promises'
import type { BenchClient } from '../kit/client.ts'
import { type Row, sample } from '../kit/statistics.ts'

interface PoolStatus {
  idle_vms: number
  busy_vms: number
  min_pool_size: number
}

/** Waits until the pool is at rest: as many idle as it keeps and none busy, so that each run finds a warm sandbox. */
export async function untilWarm(client: BenchClient) {
  for (;;) {
    const status = await client.get<PoolStatus>('/api/v1/mags-jobs/pool-status')
    if (status.idle_vms >= Math.max(1, status.min_pool_size) && status.busy_vms === 0) return
    await delay(5)
  }
}

/** One job after the other, each from a warm pool: the first byte of its output, and its end. */
export async function warmStart(name: string, client: BenchClient, runs: number, job: Record<string, unknown>): Promise<{ rows: Row[]; requestIds: string[] }> {
  const requestIds: string[] = []
  const ends: number[] = []
  const once = async () => {
    await untilWarm(client)
    const { requestId, firstByteMs, endMs } = await client.firstByte({ script: 'echo hi', ...job })
    requestIds.push(requestId)
    ends.push(endMs)
    return firstByteMs
  }
  for (let warmUp = 0; warmUp < 5; warmUp++) await once()
  requestIds.length = 0
  ends.length = 0
  const first = await sample(name, runs, once)
  const whole = await sample(`${name} → end`, ends.length, async (run) => ends[run] ?? Number.NaN)
  return { rows: [first, whole], requestIds }
}
