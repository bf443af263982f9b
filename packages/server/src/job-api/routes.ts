import {
  changeJobRequest,
  createJobAnswer,
  createJobRequest,
  doneAnswer,
  errorAnswer,
  type JobAnswer,
  jobAnswer,
  jobDetailsAnswer,
  jobIdParams,
  jobRunAnswer,
  listJobDefinitionsAnswer,
  listJobDefinitionsQuery,
  listJobRunsAnswer,
  listJobRunsQuery,
  runJobRequest,
} from '@mags/protocol'
import type { FastifyPluginCallbackZod } from 'fastify-type-provider-zod'
import type { Transaction } from 'kysely'
import { ignoredMembers } from '../http/ignored-members.ts'
import { isLong, sendList } from '../http/send-list.ts'
import { validateRange } from '../http/validate-range.ts'
import type { Tables } from '../state/schema.ts'
import { type AnswerWithRunDeps, answerWithRun } from './answer-with-run.ts'
import { type ChangeDefinitionDeps, deleteDefinition, newDefinition, updateDefinition } from './change-definition.ts'
import type { JobDefinition } from './definition.ts'
import { findDefinition } from './find-definition.ts'
import { type PrepareRunDeps, prepareFirstRun, prepareRun } from './prepare-run.ts'
import { type Present, presentDefinition, presentRun, sumRuns } from './present-job.ts'
import { type RunRoutesDeps, runRoutes } from './run-routes.ts'

export interface JobApiRoutesDeps extends ChangeDefinitionDeps, AnswerWithRunDeps, PrepareRunDeps, RunRoutesDeps {}

/** /jobs: what is made, changed and run again. */
export const jobApiRoutes: FastifyPluginCallbackZod<JobApiRoutesDeps> = (app, deps, done) => {
  validateRange(app)
  const tags = ['Jobs']
  const { definitions, host, hostName, clock } = deps
  const failures = { '4xx': errorAnswer, '5xx': errorAnswer }
  const surroundings = (): Present => ({ hostName, maxVcpus: host.capabilities().maxVcpus, now: clock() })
  const present = async (definition: JobDefinition): Promise<JobAnswer> =>
    presentDefinition(definition, (await definitions.newestRuns([definition.id])).get(definition.id), surroundings())

  app.post(
    '/jobs',
    {
      schema: { tags, summary: 'Make a job and run it', body: createJobRequest, response: { 202: createJobAnswer, ...failures } },
      config: { keepsRawBody: true },
    },
    async (request, reply) => {
      const definition = newDefinition(deps, request.identity, request.body)
      const prepare = (transaction: Transaction<Tables>) => prepareFirstRun(deps, transaction, definition)
      const warnings = ignoredMembers(request.rawBody, createJobRequest.shape)
      return await answerWithRun(deps, { request, reply }, { job: request.rawBody }, prepare, ({ requestId }) => ({
        request_id: requestId,
        status: 'accepted' as const,
        message: 'Job submitted successfully',
        ...warnings,
      }))
    },
  )

  app.get(
    '/jobs',
    { schema: { tags, summary: 'List jobs, newest first', querystring: listJobDefinitionsQuery, response: { 200: listJobDefinitionsAnswer, ...failures } } },
    async (request, reply) => {
      const { page, page_size, template_id: templateId } = request.query
      const { accountId } = request.identity
      const asked = { offset: (page - 1) * page_size, limit: page_size, templateId }
      const items = await definitions.measure(accountId, asked)
      if (isLong(items)) {
        const load = async (id: string) => {
          const definition = await definitions.get(accountId, id)
          return definition && (await present(definition))
        }
        const { total } = await definitions.list(accountId, { ...asked, limit: 0 })
        return await sendList(reply, 'jobs', items, load, { total, page, page_size })
      }
      const found = await definitions.list(accountId, asked)
      const lastRuns = await definitions.newestRuns(found.definitions.map(({ id }) => id))
      const around = surroundings()
      const jobs = found.definitions.map((definition) => presentDefinition(definition, lastRuns.get(definition.id), around))
      return { jobs, total: found.total, page, page_size }
    },
  )

  app.get(
    '/jobs/:id',
    { schema: { tags, summary: 'A job', params: jobIdParams, response: { 200: jobAnswer, ...failures } } },
    async (request) => await present(await findDefinition(deps, request.identity.accountId, request.params.id)),
  )

  app.put(
    '/jobs/:id',
    {
      schema: { tags, summary: 'Change a job, for its later runs', params: jobIdParams, body: changeJobRequest, response: { 200: jobAnswer, ...failures } },
      config: { keepsRawBody: true },
    },
    async (request) => {
      const definition = await updateDefinition(deps, request.identity.accountId, request.params.id, request.body)
      return { ...(await present(definition)), ...ignoredMembers(request.rawBody, changeJobRequest.shape) }
    },
  )

  app.delete(
    '/jobs/:id',
    { schema: { tags, summary: 'Delete a job; what runs of it is cancelled', params: jobIdParams, response: { 200: doneAnswer, ...failures } } },
    async (request) => {
      await deleteDefinition(deps, request.identity.accountId, request.params.id)
      return { success: true, message: 'Job deleted' }
    },
  )

  app.post(
    '/jobs/:id/run',
    {
      schema: { tags, summary: 'Run a job again', params: jobIdParams, body: runJobRequest.nullish(), response: { 202: jobRunAnswer, ...failures } },
    },
    async (request, reply) => {
      const definition = await findDefinition(deps, request.identity.accountId, request.params.id)
      const overrides = request.body?.environment ?? {}
      const prepare = (transaction: Transaction<Tables>) => prepareRun(deps, transaction, definition, overrides)
      return await answerWithRun(deps, { request, reply }, { run_job: definition.id, environment: overrides }, prepare, (run) =>
        presentRun(run, surroundings()),
      )
    },
  )

  app.get(
    '/jobs/:id/details',
    { schema: { tags, summary: 'A job, and how many runs it has had', params: jobIdParams, response: { 200: jobDetailsAnswer, ...failures } } },
    async (request) => {
      const definition = await findDefinition(deps, request.identity.accountId, request.params.id)
      return { ...(await present(definition)), runs: sumRuns(await definitions.countRuns(definition.id)) }
    },
  )

  app.get(
    '/jobs/:id/runs',
    {
      schema: {
        tags,
        summary: 'Runs of a job, newest first',
        params: jobIdParams,
        querystring: listJobRunsQuery,
        response: { 200: listJobRunsAnswer, ...failures },
      },
    },
    async (request) => {
      const { page, page_size } = request.query
      const { id } = await findDefinition(deps, request.identity.accountId, request.params.id)
      const found = await definitions.listRuns(id, { offset: (page - 1) * page_size, limit: page_size })
      const around = surroundings()
      return { runs: found.runs.map((run) => presentRun(run, around)), total: found.total, page, page_size }
    },
  )
  runRoutes(app, deps, done)
}
