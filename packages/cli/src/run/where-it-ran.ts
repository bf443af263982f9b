import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import type { Mags, StatusWire } from '@mags/sdk'
import type { Cli } from '../cli.ts'

/**
 * Says where the job ran: on a terminal after every job, and once per machine that a container is the weaker wall. Failing to find out
 * is not worth a word, the job is done.
 */
export async function sayWhereItRan(cli: Cli, mags: Mags, id: string): Promise<void> {
  const marker = join(cli.env.HOME || homedir(), '.mags', 'container-isolation-told')
  const told = existsSync(marker)
  if (cli.output.json || (told && !cli.output.stderrIsTerminal)) return
  const status = await mags.status(id).catch(() => undefined)
  if (status === undefined) return
  if (!told && status.isolation === 'container') {
    await cli.output.note("container isolation: the sandbox shares this host's kernel. 'mags doctor' says what a virtual machine needs. (Said once.)")
    leaveMarker(marker)
  }
  await cli.output.aside(describeWhere(status))
}

/** Such as `ran in container 3f2a90c1d2e4 (debian-12), started in 6 ms, took 12 ms`. */
export function describeWhere(
  status: Pick<StatusWire, 'isolation' | 'vm_id' | 'image' | 'start_duration_ms' | 'script_duration_ms' | 'exit_code' | 'completed_at'>,
): string {
  if (status.isolation === null) return 'no sandbox was taken'
  const verb = status.completed_at === null && status.exit_code === null ? 'runs' : 'ran'
  const times = [
    ...(status.start_duration_ms == null ? [] : [`started in ${milliseconds(status.start_duration_ms)}`]),
    ...(status.script_duration_ms == null ? [] : [`took ${milliseconds(status.script_duration_ms)}`]),
  ]
  return [`${verb} in ${wallName(status.isolation)} ${status.vm_id ?? ''} (${status.image})`, ...times].join(', ')
}

function wallName(isolation: string): string {
  if (isolation === 'kvm') return 'virtual machine'
  return isolation === 'emulated-vm' ? 'emulated virtual machine' : isolation
}

export function milliseconds(value: number): string {
  if (value >= 10_000) return `${(value / 1000).toFixed(1)} s`
  return `${value >= 10 ? Math.round(value) : Number(value.toFixed(1))} ms`
}

function leaveMarker(marker: string): void {
  try {
    mkdirSync(dirname(marker), { recursive: true, mode: 0o700 })
    writeFileSync(marker, '', { mode: 0o600 })
  } catch {
    // A home that cannot be written to hears it again.
  }
}
