import { readFile } from 'node:fs/promises'

/** A process that cannot be mistaken for a later one with the same number. */
export interface ProcessIdentity {
  readonly pid: number
  /** Start time in clock ticks since boot: field 22 of proc_pid_stat(5). */
  readonly startTicks: number
}

/** Start time of a process; undefined when there is none, or only a zombie. */
export async function startTicksOf(pid: number): Promise<number | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  if (text === undefined) return undefined
  // The name in parentheses may hold spaces and parentheses; fields are counted after the last one.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return fields[0] === 'Z' || fields[0] === 'X' ? undefined : Number(fields[19])
}

export async function identifyProcess(pid: number): Promise<ProcessIdentity | undefined> {
  const startTicks = await startTicksOf(pid)
  return startTicks === undefined ? undefined : { pid, startTicks }
}

export async function isAlive(process: ProcessIdentity): Promise<boolean> {
  return (await startTicksOf(process.pid)) === process.startTicks
}
