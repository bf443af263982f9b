import { errorAnswer, jobParams, logsAnswer, logsQuery } from '@mags/protocol'
import type { FastifyPluginCallbackZod } from 'fastify-type-provider-zod'
import { findJob } from '../jobs/routes.ts'
import { type SendLogDeps, sendLog } from './send-log.ts'

export type LogRoutesDeps = SendLogDeps

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
      const job = await findJob(deps.store, request.identity.accountId, request.params.id)
      return (await sendLog(deps, job, request, reply)) ?? reply
    },
  )
  done()
}
