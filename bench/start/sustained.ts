import { readFile } from 'node:fs/promises'
import type { BenchClient } from '../kit/client.ts'
import { summarize, table } from '../kit/statistics.ts'

const residentMb = async (pid: number) => Number(/^VmRSS:\s+(\d+) kB/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024

/** Two clients, each with the next job as soon as the last has ended; the daemon's memory after each tenth. */
export async function sustained(client: BenchClient, pid: number, jobs: number): Promise<string> {
  const ends: number[] = []
  const memory: number[] = []
  let started = 0
  let failed = 0
  const begin = performance.now()
  const worker = async () => {
    while (started < jobs) {
      started++
      try {
        ends.push((await client.firstByte({ script: 'echo hi' })).firstByteMs)
      } catch {
        failed++
      }
      if ((ends.length + failed) % Math.ceil(jobs / 10) === 0) memory.push(await residentMb(pid))
    }
  }
  await Promise.all([worker(), worker()])
  const seconds = (performance.now() - begin) / 1000
  const row = summarize('submit → first byte', ends, failed)
  return `${table([row])}\n\n${(jobs / seconds).toFixed(1)} jobs/s. Resident memory of the daemon after each tenth: ${memory.map((mb) => mb.toFixed(0)).join(', ')} MB.`
}
