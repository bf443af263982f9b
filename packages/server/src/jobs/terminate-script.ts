import type { RunningSandbox } from '@mags/protocol'
import { settlesWithin } from './settles-within.ts'

/** How long a destroyed sandbox may take to report its script's end. */
const lastWordsMs = 2000
const sigterm = 15

export interface TerminateOptions {
  readonly graceMs: number
  /** Its workspace is saved after that: that ends its processes, and the sandbox goes after it. */
  readonly keepsSandbox: boolean
  readonly warn: (error: unknown, words: string) => void
}

/** SIGTERM to the script's processes, and after `graceMs` the end of the sandbox. Whether the script's end was seen; never rejects. */
export async function terminateScript(running: RunningSandbox, { graceMs, keepsSandbox, warn }: TerminateOptions): Promise<boolean> {
  running.signal(sigterm).catch((error: unknown) => warn(error, 'a script could not be signalled'))
  if (await settlesWithin(running.exited, graceMs)) return true
  if (keepsSandbox) return false
  await running.destroy().catch((error: unknown) => warn(error, 'a sandbox could not be destroyed'))
  return await settlesWithin(running.exited, lastWordsMs)
}
