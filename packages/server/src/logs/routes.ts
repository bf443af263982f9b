import { errorAnswer, isFinal, jobParams, logsAnswer, logsQuery } from '@mags/protocol'
import type { FastifyPluginCallbackZod } from 'fastify-type-provider-zod'
import { EventStream } from '../http/event-stream.ts'
import { findJob } from '../jobs/routes.ts'
import type { JobStore } from '../jobs/store.ts'
import { beginning, formatCursor, parseCursor } from './cursor.ts'
import { followLog, replayLog } from './follow-log.ts'
import type { LogStore } from './log-store.ts'
import { readRows } from './read-rows.ts'

export interface LogRoutesDeps {
  readonly store: JobStore
  readonly logs: LogStore
  /** Ends streams when the server closes. */
  readonly shutdown: AbortSignal
}

const answerBytes = 4 * 1024 * 1024

export const logRoutes: FastifyPluginCallbackZod<LogRoutesDeps> = (app, deps, done) => {
  app.get(
    '/mags-jobs/:id/logs',
    {
      schema: {
        tags: ['Mags jobs'],
        summary: 'Rows of the log of a job; with follow=true as Server-Sent Events until the job is over',
        params: jobParams,
        querystring: logsQuery,
        response: { 200: logsAnswer, '4xx': errorAnswer },
      },
    },
    async (request, reply) => {
      const { source, limit, follow } = request.query
      const job = await findJob(deps.store, request.identity.accountId, request.params.id)
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
      // Without an open log the job is over, perhaps since it was read above.
      const ended = active || isFinal(job.status) ? job : await findJob(deps.store, job.accountId, job.requestId)
      using stream = new EventStream(reply, deps.shutdown)
      if (active) await followLog(active, stream, { from, source })
      else await replayLog(log, { status: ended.status, exitCode: ended.exitCode }, stream, { from, source })
      return reply
    },
  )
  done()
}
