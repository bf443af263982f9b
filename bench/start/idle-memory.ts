import { readFile, writeFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { startDaemon } from '../../tests/kit/daemon.ts'
import { BenchClient } from '../kit/client.ts'

const availableMb = async () => Number(/^MemAvailable:\s+(\d+) kB/m.exec(await readFile('/proc/meminfo', 'utf8'))?.[1] ?? 0) / 1024

/** MemAvailable with 3 and with `count` idle sandboxes; what lies between, for each. */
export async function idleMemory(count: number): Promise<string> {
  const lines = ['| isolation | idle | MemAvailable per sandbox, MiB |', '|---|---|---|']
  for (const isolation of ['container', 'vm']) {
    const few = await availableWith(isolation, 3)
    const many = await availableWith(isolation, count)
    lines.push(`| ${isolation} | ${count} | ${((few - many) / (count - 3)).toFixed(1)} |`)
  }
  return lines.join('\n')
}

async function availableWith(isolation: string, count: number) {
  await using daemon = await startDaemon({ MAGS_ISOLATION: isolation, MAGS_POOL_MIN: `${count}` })
  const client = new BenchClient(daemon)
  for (;;) {
    const { idle_vms: idle } = await client.get<{ idle_vms: number }>('/api/v1/mags-jobs/pool-status')
    if (idle >= count) break
    await delay(100)
  }
  client.close()
  await delay(2000)
  // What files happen to be cached is no sandbox's doing.
  await writeFile('/proc/sys/vm/drop_caches', '3')
  await delay(500)
  return availableMb()
}
