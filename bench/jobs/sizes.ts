import { startDaemon } from '../../tests/kit/daemon.ts'
import { BenchClient } from '../kit/client.ts'
import { type Row, summarize } from '../kit/statistics.ts'
import { untilWarm } from '../start/first-byte.ts'
import { firstByteOf, type RunStatus } from './api.ts'

const parts = ['queue_duration_ms', 'acquire_duration_ms', 'attach_duration_ms', 'first_byte_duration_ms', 'start_duration_ms'] as const

/** Where the start of a job goes, by the status of its run: of a size that is warm, and of those that nobody asked for before. */
export async function measureSizes(isolation: 'container' | 'vm', runs: number): Promise<Row[]> {
  const warm = { vcpus: 1, memory_mb: 512 }
  const environment = { MAGS_DEFAULT_VCPUS: String(warm.vcpus), MAGS_DEFAULT_MEMORY_MB: String(warm.memory_mb) }
  await using daemon = await startDaemon({ MAGS_ISOLATION: isolation, ...environment })
  const client = new BenchClient(daemon)
  const run = async (size: Record<string, number>) => (await firstByteOf(client, { script: 'echo hi', ...size })).id
  // The Jobs API has no disk size for what is not kept.
  const runOnDisk = async (diskGb: number) => (await client.firstByte({ script: 'echo hi', ...warm, disk_gb: diskGb })).requestId
  try {
    await untilWarm(client)
    await run(warm)
    return [
      ...(await measure(client, 'warm size', runs, () => run(warm))),
      // A new one each time: what was asked for once may be kept for the next.
      ...(await measure(client, 'another memory size', runs, (number) => run({ vcpus: 1, memory_mb: 257 + number }))),
      ...(isolation === 'vm' ? [] : await measure(client, 'another disk size', runs, (number) => runOnDisk(12 + number))),
    ]
  } finally {
    client.close()
  }
}

async function measure(client: BenchClient, name: string, runs: number, start: (number: number) => Promise<string>): Promise<Row[]> {
  const statuses: RunStatus[] = []
  for (let number = 0; number < runs; number++) {
    await untilWarm(client)
    try {
      statuses.push(await client.get<RunStatus>(`/api/v1/mags-jobs/${await start(number)}/status`))
    } catch (error) {
      process.stderr.write(`${name}: ${error}\n`)
    }
  }
  const said = `${name} (warm: ${statuses.filter(({ warm }) => warm).length} of ${statuses.length})`
  return parts.map((part) => {
    const samples = statuses.map((status) => status[part])
    return summarize(part === 'start_duration_ms' ? `${said}: whole start` : `${name}: ${part.replace('_duration_ms', '')}`, samples, runs - statuses.length)
  })
}
