import { readFile } from 'node:fs/promises'
import { runAny } from '../../run.ts'

/**
 * Frequency of this machine's time stamp counter in kHz. An emulated guest reads the host's counter and is told the frequency rather than left to measure it. What the kernel found at boot is
 * exact; /proc/cpuinfo shows the current frequency of a core, which is the same only where it does not change (as in most virtual machines).
 */
export async function readTscKhz(): Promise<number> {
  const log = await runAny('dmesg', [], { timeoutMs: 5_000 }).catch(() => undefined)
  return parseTscKhz(log?.stdout ?? '', await readFile('/proc/cpuinfo', 'utf8'))
}

export function parseTscKhz(kernelLog: string, cpuinfo: string): number {
  const refined = /tsc: Refined TSC clocksource calibration: ([\d.]+) MHz/.exec(kernelLog)?.[1]
  const detected = /tsc: Detected ([\d.]+) MHz processor/.exec(kernelLog)?.[1]
  // Intel's names end in the frequency the counter runs with.
  const named = /^model name\s*:.*@ ([\d.]+)GHz/m.exec(cpuinfo)?.[1]
  const current = /^cpu MHz\s*:\s*([\d.]+)/m.exec(cpuinfo)?.[1]
  const mhz = Number(refined ?? detected ?? (named === undefined ? current : Number(named) * 1000))
  if (!(mhz > 0)) throw new Error('the frequency of this processor is neither in the kernel log nor in /proc/cpuinfo')
  return Math.round(mhz * 1000)
}
