import {
  doneAnswer,
  errorAnswer,
  execAnswer,
  execQuery,
  execRequest,
  isFinal,
  jobParams,
  jobStatusAnswer,
  listJobsAnswer,
  listJobsQuery,
  MagsError,
  submitJobAnswer,
  submitJobRequest,
  syncJobAnswer,
  updateJobRequest,
} from '@mags/protocol'
import type { FastifyPluginCallbackZod } from 'fastify-type-provider-zod'
import { EventStream } from '../http/event-stream.ts'
import { serverTiming } from '../http/server-timing.ts'
import type { Dispatcher } from './dispatcher.ts'
import { execJob, runForExec, streamExec } from './exec-job.ts'
import type { Job } from './job.ts'
import { presentJob } from './present-job.ts'
import type { JobStore } from './store.ts'
import { type SubmitDeps, submitJob } from './submit-job.ts'
import { runForSync } from './sync-job.ts'

export interface JobRoutesDeps extends SubmitDeps {
  readonly store: JobStore
  readonly dispatcher: Dispatcher
  readonly appsUrl: string | undefined
  /** Ends streams when the server closes. */
  readonly shutdown: AbortSignal
}

const later: readonly (readonly ['GET' | 'POST' | 'PUT' | 'DELETE', string, string])[] = [
  ['POST', 'access', 'URL and SSH access'],
  ['POST', 'sleep', 'sleeping jobs'],
  ['POST', 'wake', 'sleeping jobs'],
]

/** Finds the job a path names, for the account of the request. */
export async function findJob(store: JobStore, accountId: string, id: string): Promise<Job> {
  const job = await store.find(accountId, id)
  if (job === undefined) throw new MagsError('not_found', `no job ${JSON.stringify(id.slice(0, 64))}; 'mags list' shows those there are`)
  return job
}

export const jobRoutes: FastifyPluginCallbackZod<JobRoutesDeps> = (app, deps, done) => {
  const tags = ['Mags jobs']
  const find = (accountId: string, id: string) => findJob(deps.store, accountId, id)

  app.post(
    '/mags-jobs',
    {
      schema: { tags, summary: 'Submit a job', body: submitJobRequest, response: { 202: submitJobAnswer, '4xx': errorAnswer, '5xx': errorAnswer } },
      config: { keepsRawBody: true },
    },
    async (request, reply) => {
      const acceptedAt = performance.now()
      const key = request.headers['idempotency-key']
      const answer = await submitJob(deps, {
        accountId: request.identity.accountId,
        request: request.body,
        body: request.rawBody,
        idempotencyKey: typeof key === 'string' ? key : undefined,
        acceptedAt,
      })
      reply.code(202).header('server-timing', serverTiming({ store: round(performance.now() - acceptedAt) }))
      return answer
    },
  )

  app.get(
    '/mags-jobs',
    { schema: { tags, summary: 'List jobs, newest first', querystring: listJobsQuery, response: { 200: listJobsAnswer } } },
    async (request) => {
      const { page, page_size, status, workspace_id } = request.query
      const options = { offset: (page - 1) * page_size, limit: page_size, status, workspaceId: workspace_id }
      return { ...(await deps.store.list(request.identity.accountId, options)), page, page_size }
    },
  )

  app.get(
    '/mags-jobs/:id/status',
    { schema: { tags, summary: 'Status of a job', params: jobParams, response: { 200: jobStatusAnswer, '4xx': errorAnswer } } },
    async (request, reply) => {
      const job = await find(request.identity.accountId, request.params.id)
      const { queueMs, acquireMs, attachMs, firstByteMs } = job.timings
      if (queueMs !== null) reply.header('server-timing', serverTiming({ queue: queueMs, acquire: acquireMs, attach: attachMs, 'first-byte': firstByteMs }))
      const workspace = job.workspaceStorageId === null ? undefined : await deps.workspaces.byStorageId(job.workspaceStorageId)
      return presentJob(job, deps.appsUrl, deps.dispatcher.find(job.requestId)?.timings, workspace)
    },
  )

  app.patch(
    '/mags-jobs/:id',
    { schema: { tags, summary: 'Change a job', params: jobParams, body: updateJobRequest, response: { 200: doneAnswer, '4xx': errorAnswer } } },
    async (request) => {
      const job = await find(request.identity.accountId, request.params.id)
      const { startup_command: startupCommand, no_sleep: noSleep } = request.body
      if (noSleep && !job.persistent) throw new MagsError('bad_request', 'no_sleep: needs a persistent job')
      const change = { ...(startupCommand === undefined ? {} : { startupCommand }), ...(noSleep === undefined ? {} : { noSleep }) }
      if (isFinal(job.status) || !(await deps.store.update(job.requestId, change)))
        throw new MagsError('job_not_running', `job ${job.name} is over and cannot be changed`)
      return { success: true, message: 'Job updated' }
    },
  )

  app.post(
    '/mags-jobs/:id/stop',
    { schema: { tags, summary: 'Stop a job', params: jobParams, response: { 200: doneAnswer, '4xx': errorAnswer } } },
    async (request) => {
      const job = await find(request.identity.accountId, request.params.id)
      const run = deps.dispatcher.find(job.requestId)
      if (run === undefined || isFinal(job.status)) {
        const { status } = isFinal(job.status) ? job : await find(job.accountId, job.requestId)
        return { success: true, message: `Job is over already (${status})` }
      }
      await run.stop()
      return { success: true, message: 'Job stopped' }
    },
  )

  app.post(
    '/mags-jobs/:id/sync',
    {
      schema: {
        tags,
        summary: 'Save the workspace of a running job now; answers once that is durable',
        params: jobParams,
        response: { 200: syncJobAnswer, '4xx': errorAnswer, '5xx': errorAnswer },
      },
    },
    async (request) => {
      const job = await find(request.identity.accountId, request.params.id)
      const saved = await runForSync(job, deps.dispatcher.find(job.requestId)).sync()
      return {
        success: true,
        workspace_id: saved.workspaceId,
        version: saved.version.version,
        bytes_uploaded: saved.changed ? saved.version.uploadedBytes : 0,
      }
    },
  )

  app.post(
    '/mags-jobs/:id/exec',
    {
      schema: {
        tags,
        summary: 'Run a command in a running job; with stream=true its output as Server-Sent Events',
        params: jobParams,
        querystring: execQuery,
        body: execRequest,
        response: { 200: execAnswer, '4xx': errorAnswer },
      },
    },
    async (request, reply) => {
      const job = await find(request.identity.accountId, request.params.id)
      const run = runForExec(job, deps.dispatcher.find(job.requestId))
      if (request.query.stream) {
        using stream = new EventStream(reply, deps.shutdown)
        await streamExec(run, request.body, stream, deps.clock)
        return reply
      }
      const gone = new AbortController()
      reply.raw.once('close', () => gone.abort())
      const answer = await execJob(run, request.body, gone.signal)
      reply.header('server-timing', serverTiming({ exec: answer.duration_ms }))
      return answer
    },
  )

  for (const [method, path, what] of later) {
    app.route({
      method,
      url: `/mags-jobs/:id/${path}`,
      schema: { tags, summary: `Not available yet: ${what}`, params: jobParams, response: { '4xx': errorAnswer } },
      handler: async () => {
        throw new MagsError('not_available', `not available yet: this server does not do ${what}`)
      },
    })
  }
  done()
}

const round = (value: number) => Math.round(value * 1000) / 1000
