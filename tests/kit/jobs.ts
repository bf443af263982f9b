import { setTimeout as delay } from 'node:timers/promises'
import type { Mags } from '@mags/sdk'

type Status = Awaited<ReturnType<Mags['status']>>

/** Polls until the status is as wanted; the test's own time limit is the deadline. */
export async function untilStatus(mags: Mags, id: string, wanted: (status: Status) => boolean): Promise<Status> {
  for (;;) {
    const status = await mags.status(id)
    if (wanted(status)) return status
    await delay(20)
  }
}

export const isRunning = (status: Status) => status.status === 'running' && status.attach_duration_ms !== null
export const isFinal = (status: Status) => ['completed', 'error', 'stopped'].includes(status.status)

/** Words of the job's system rows. */
export async function systemWords(mags: Mags, id: string): Promise<string> {
  const { logs } = await mags.logs(id, { source: 'system' })
  return logs.map(({ message }) => message).join('\n')
}
