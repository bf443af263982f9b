import {
  accessAnswer,
  accessRequest,
  doneAnswer,
  errorAnswer,
  execAnswer,
  execQuery,
  execRequest,
  forkJobAnswer,
  forkJobRequest,
  isFinal,
  jobParams,
  jobStatusAnswer,
  listJobsAnswer,
  listJobsQuery,
  MagsError,
  sleepAnswer,
  sleepRequest,
  submitJobAnswer,
  submitJobRequest,
  syncJobAnswer,
  updateJobRequest,
  wakeAnswer,
  wakeRequest,
} from '@mags/protocol'
import type { FastifyPluginCallbackZod } from 'fastify-type-provider-zod'
import { type AccessDeps, accessJob } from '../access/access-job.ts'
import { ownerOf } from '../access/owner.ts'
import { noAccess } from '../access/store.ts'
import { EventStream } from '../http/event-stream.ts'
import { goneSignal } from '../http/gone-signal.ts'
import { serverTiming } from '../http/server-timing.ts'
import type { Dispatcher } from './dispatcher.ts'
import { execJob, runForExec, streamExec } from './exec-job.ts'
import { type ForkDeps, forkJob } from './fork-job.ts'
import type { Job } from './job.ts'
import { presentJob } from './present-job.ts'
import { sleepJob, wakeJob } from './sleep/sleep-job.ts'
import { startSteps } from './start-steps.ts'
import type { JobStore } from './store.ts'
import { submitJob } from './submit-job.ts'
import { runForSync } from './sync-job.ts'
import { updateJob } from './update-job.ts'

export interface JobRoutesDeps extends ForkDeps, AccessDeps {
  readonly store: JobStore
  readonly dispatcher: Dispatcher
  /** Ends streams when the server closes. */
  readonly shutdown: AbortSignal
}

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
      if (job.timings.queueMs !== null) reply.header('server-timing', serverTiming(startSteps(job)))
      const workspace = job.workspaceStorageId === null ? undefined : await deps.workspaces.byStorageId(job.workspaceStorageId)
      const { visibility } = job.persistent ? await deps.access.find(ownerOf(job)) : noAccess
      const { timings: live, trouble } = deps.dispatcher.find(job.requestId) ?? {}
      return presentJob(job, { appsUrl: deps.appsUrlNow(), live, workspace, visibility, trouble: trouble?.words })
    },
  )

  app.patch(
    '/mags-jobs/:id',
    { schema: { tags, summary: 'Change a job', params: jobParams, body: updateJobRequest, response: { 200: doneAnswer, '4xx': errorAnswer } } },
    async (request) => {
      const job = await find(request.identity.accountId, request.params.id)
      await updateJob(deps, job, request.body)
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
      const run = runForSync(job, deps.dispatcher.find(job.requestId))
      // What sleeps was saved before, and nothing of it has changed since.
      if (run.sleep.stage !== undefined) return { success: true, workspace_id: job.workspaceId ?? '', version: job.workspaceVersion ?? 0, bytes_uploaded: 0 }
      const saved = await run.sync()
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
      const gone = goneSignal(reply)
      // Before the first byte of an answer, so that what fails here is a status of its own.
      using use = await run.uses.use('exec', gone)
      if (request.query.stream) {
        using stream = new EventStream(reply, deps.shutdown)
        await streamExec(run, request.body, stream, deps.clock)
        return reply
      }
      const answer = await execJob(run, request.body, gone)
      reply.header('server-timing', serverTiming({ wake: use.wakeMs, exec: answer.duration_ms }))
      return answer
    },
  )

  app.post(
    '/mags-jobs/:id/access',
    {
      schema: {
        tags,
        summary: 'Open a port of a persistent job: 22 for SSH, any other for its URL; a sleeping one is woken',
        params: jobParams,
        body: accessRequest,
        response: { 200: accessAnswer, '4xx': errorAnswer, '5xx': errorAnswer },
      },
    },
    async (request, reply) => {
      const job = await find(request.identity.accountId, request.params.id)
      const { answer, wakeMs } = await accessJob(deps, job, deps.dispatcher.find(job.requestId), request.body, goneSignal(reply))
      reply.header('server-timing', serverTiming({ wake: wakeMs, ...startSteps(job) }))
      return answer
    },
  )

  app.post(
    '/mags-jobs/:id/sleep',
    {
      schema: {
        tags,
        summary: 'Put a persistent job to sleep now, its workspace saved; with release its memory is given back',
        params: jobParams,
        body: sleepRequest.nullish(),
        response: { 200: sleepAnswer, '4xx': errorAnswer, '5xx': errorAnswer },
      },
    },
    async (request) => {
      const job = await find(request.identity.accountId, request.params.id)
      return await sleepJob(job, deps.dispatcher.find(job.requestId), request.body?.release ?? false)
    },
  )

  app.post(
    '/mags-jobs/:id/wake',
    {
      schema: {
        tags,
        summary: 'Wake a sleeping job; answers once it runs',
        params: jobParams,
        body: wakeRequest.nullish(),
        response: { 200: wakeAnswer, '4xx': errorAnswer, '5xx': errorAnswer },
      },
    },
    async (request, reply) => {
      const job = await find(request.identity.accountId, request.params.id)
      const answer = await wakeJob(job, deps.dispatcher.find(job.requestId), goneSignal(reply))
      reply.header('server-timing', serverTiming({ wake: answer.wake_duration_ms }))
      return answer
    },
  )

  app.post(
    '/mags-jobs/:id/fork',
    {
      schema: {
        tags,
        summary: 'Copy a persistent job: another one whose sandbox begins as this one is now; answers once it runs',
        params: jobParams,
        body: forkJobRequest.nullish(),
        response: { 202: forkJobAnswer, '4xx': errorAnswer, '5xx': errorAnswer },
      },
    },
    async (request, reply) => {
      const job = await find(request.identity.accountId, request.params.id)
      const answer = await forkJob(deps, request, job, request.body ?? {})
      reply.code(202)
      return answer
    },
  )
  done()
}

const round = (value: number) => Math.round(value * 1000) / 1000
