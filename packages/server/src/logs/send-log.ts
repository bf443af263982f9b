import { isFinal, type LogsAnswer, type logsQuery } from '@mags/protocol'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import { EventStream } from '../http/event-stream.ts'
import type { Job } from '../jobs/job.ts'
import type { JobStore } from '../jobs/store.ts'
import { beginning, formatCursor, parseCursor } from './cursor.ts'
import { followLog, replayLog } from './follow-log.ts'
import type { LogEnd } from './job-log.ts'
import type { LogStore } from './log-store.ts'
import { readRows } from './read-rows.ts'

export interface SendLogDeps {
  readonly store: JobStore
  readonly logs: LogStore
  /** Ends streams when the server closes. */
  readonly shutdown: AbortSignal
}

interface LogRequest extends Pick<FastifyRequest, 'headers'> {
  readonly query: z.output<typeof logsQuery>
}

const answerBytes = 4 * 1024 * 1024

/** Answers with rows of a job's log, or, with follow, with all of them as events until the job is over: then the reply is taken over and undefined returned. Rejects with MagsError('bad_request') for a cursor of another log. */
export async function sendLog(
  deps: SendLogDeps,
  job: Job,
  request: LogRequest,
  reply: FastifyReply,
  presentEnd?: (end: LogEnd) => unknown,
): Promise<LogsAnswer | undefined> {
  const { source, limit, follow } = request.query
  const log = deps.logs.bytes(job.requestId)
  const lastEventId = request.headers['last-event-id']
  // A browser resumes by itself with the header, while its address still has the first `after`.
  const cursor = typeof lastEventId === 'string' && lastEventId !== '' ? lastEventId : request.query.after
  const from = cursor === undefined ? beginning : await parseCursor(cursor, log)
  if (!follow) {
    const page = await readRows(log, { from, limit, maxBytes: answerBytes, source })
    return { logs: page.rows.map(({ row }) => row), next: formatCursor(page.next) }
  }
  const active = deps.logs.active(job.requestId)
  // Without an open log the job is over, perhaps since it was read.
  const ended = active || isFinal(job.status) ? job : ((await deps.store.get(job.requestId)) ?? job)
  using stream = new EventStream(reply, deps.shutdown)
  const options = { from, source, presentEnd }
  if (active) await followLog(active, stream, options)
  else await replayLog(log, { status: ended.status, exitCode: ended.exitCode }, stream, options)
  return undefined
}
