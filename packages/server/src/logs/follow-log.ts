import { setImmediate } from 'node:timers/promises'
import type { OutputSource } from '@mags/protocol'
import { type EventStream, formatEvent } from '../http/event-stream.ts'
import type { LogBytes, Position } from './cursor.ts'
import type { JobLog, LogEnd } from './job-log.ts'
import { readRows } from './read-rows.ts'

export interface FollowOptions {
  readonly from: Position
  readonly source?: OutputSource | undefined
  /** What the last event says; the status of Mags jobs and the exit code unless given. */
  readonly presentEnd?: ((end: LogEnd) => unknown) | undefined
}

const rowsPerTurn = 500
const bytesPerTurn = 256 * 1024

/**
 * Sends rows until the job is over. A persistent job whose script ended goes on (its daemons may write); then `event: exit` says so.
 * A slow reader makes this wait, never the job; between two turns other work gets its chance.
 */
export async function followLog(log: JobLog, stream: EventStream, options: FollowOptions): Promise<void> {
  let position = options.from
  let exitSent = false
  let changed = Promise.withResolvers<void>()
  const notice = () => changed.resolve()
  const unsubscribe = log.subscribe(notice)
  stream.closed.addEventListener('abort', notice, { once: true })
  try {
    while (!stream.closed.aborted) {
      // Renewed before looking, so that a change during a send is not missed.
      changed = Promise.withResolvers<void>()
      const { scriptExit, ended } = log
      const page = await sendPage(log, stream, position, options.source)
      position = page.next
      if (scriptExit && !exitSent && (page.complete || position.record >= scriptExit.position)) {
        exitSent = true
        await stream.send(formatEvent({ event: 'exit', data: { exit_code: scriptExit.exitCode } }))
      }
      if (!page.complete) {
        await setImmediate()
      } else if (ended) {
        return await sendEnd(stream, ended, options)
      } else if (!stream.closed.aborted) {
        await changed.promise
      }
    }
  } finally {
    unsubscribe()
  }
}

/** The same for a job that is over already. */
export async function replayLog(log: LogBytes, end: LogEnd, stream: EventStream, options: FollowOptions): Promise<void> {
  let position = options.from
  while (!stream.closed.aborted) {
    const page = await sendPage(log, stream, position, options.source)
    if (page.complete) return await sendEnd(stream, end, options)
    position = page.next
    await setImmediate()
  }
}

async function sendPage(log: LogBytes, stream: EventStream, from: Position, source: OutputSource | undefined) {
  const page = await readRows(log, { from, limit: rowsPerTurn, maxBytes: bytesPerTurn, source })
  if (page.rows.length > 0) await stream.send(page.rows.map(({ row, cursor }) => formatEvent({ id: cursor, event: 'log', data: row })).join(''))
  return page
}

async function sendEnd(stream: EventStream, end: LogEnd, { presentEnd }: FollowOptions): Promise<void> {
  const data = presentEnd ? await presentEnd(end) : { status: end.status, exit_code: end.exitCode }
  await stream.send(formatEvent({ event: 'end', data }))
}
