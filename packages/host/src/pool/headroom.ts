import { readFileSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'

/** Whether this machine has room for one more sandbox. */
export interface Headroom {
  /** For one that a job waits for: only memory stops it, a busy processor just makes it slower. */
  forJob(): boolean
  /** For one more in stock: neither processor nor memory may be over the limit. */
  forStock(): boolean
  /** Why not, or undefined when there is room. */
  words(): string | undefined
}

const sampleMs = 500

/**
 * Headroom of the whole machine: used memory (MemAvailable of proc_meminfo(5)) and processor time over the last half second, each below `limit` (0 to 1).
 */
export function machineHeadroom(limit = 0.9, perSandboxMb = 64): Headroom {
  let sampledAt = Number.NEGATIVE_INFINITY
  let last = processorTimes()
  let cpuUsed = 0
  let memoryUsed = 0
  const sample = () => {
    const now = performance.now()
    if (now - sampledAt < sampleMs) return
    const times = processorTimes()
    const total = times.total - last.total
    if (total > 0) cpuUsed = 1 - (times.idle - last.idle) / total
    last = times
    sampledAt = now
    memoryUsed = usedMemory(perSandboxMb)
  }
  const full = (what: string, used: number) => `${what} is ${Math.round(used * 100)} % in use, over the limit of ${Math.round(limit * 100)} %`
  return {
    forJob() {
      sample()
      return memoryUsed < limit
    },
    forStock() {
      sample()
      return memoryUsed < limit && cpuUsed < limit
    },
    words() {
      sample()
      if (memoryUsed >= limit) return full('memory', memoryUsed)
      return cpuUsed >= limit ? full(`processor time (${availableParallelism()} cores)`, cpuUsed) : undefined
    },
  }
}

function processorTimes() {
  let idle = 0
  let total = 0
  for (const { times } of cpus()) {
    idle += times.idle
    total += times.user + times.nice + times.sys + times.idle + times.irq
  }
  return { idle, total }
}

function usedMemory(reserveMb: number) {
  const text = readFileSync('/proc/meminfo', 'utf8')
  const kb = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0)
  const total = kb('MemTotal')
  return total === 0 ? 0 : 1 - (kb('MemAvailable') - reserveMb * 1024) / total
}
