import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { RunningSandbox } from '@mags/protocol'
import { median } from '../kit/statistics.ts'
import type { Stage } from './stage.ts'

/** What sleeping sandboxes cost: memory of their control groups, and processor time of this process, which is what a daemon is without its server. */
export async function measureFrozen(stage: Stage, count: number): Promise<string> {
  const sandboxes: RunningSandbox[] = []
  try {
    for (let made = 0; made < count; made += 4) {
      const started = await Promise.all(Array.from({ length: Math.min(4, count - made) }, () => stage.start()))
      for (const { sandbox } of started) {
        sandboxes.push(sandbox)
        await sandbox.sleep()
      }
    }
    // Memory is given back in the background.
    await delay(20_000)
    const bytes = await Promise.all(sandboxes.map(({ sandboxId }) => memoryOf(stage, sandboxId)))
    const measuredMs = 30_000
    const before = process.cpuUsage()
    await delay(measuredMs)
    const { user, system } = process.cpuUsage(before)
    const resident = (bytes.reduce((sum, each) => sum + each, 0) / bytes.length / 2 ** 20).toFixed(2)
    return [
      '| kind | sandboxes | memory each, mean / median MiB | processor of the host, % of one core |',
      '|---|---|---|---|',
      `| ${stage.isolation} | ${count} | ${resident} / ${(median(bytes) / 2 ** 20).toFixed(2)} | ${((user + system) / 10 / measuredMs).toFixed(2)} |`,
    ].join('\n')
  } finally {
    await Promise.all(sandboxes.map((sandbox) => sandbox.destroy()))
  }
}

async function memoryOf({ instance, isolation }: Stage, sandboxId: string): Promise<number> {
  const group = `mags/${instance}/${isolation}/${sandboxId}`
  const files = [join('/sys/fs/cgroup', group, 'memory.current'), join('/sys/fs/cgroup/memory', group, 'memory.usage_in_bytes')]
  for (const file of files) {
    const text = await readFile(file, 'utf8').catch(() => undefined)
    if (text !== undefined) return Number(text)
  }
  throw new Error(`no memory is counted for ${group}`)
}
