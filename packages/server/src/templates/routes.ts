import {
  changeTemplateRequest,
  createTemplateRequest,
  doneAnswer,
  errorAnswer,
  jobRunAnswer,
  listTemplateRevisionsAnswer,
  listTemplateRevisionsQuery,
  listTemplatesAnswer,
  listTemplatesQuery,
  runJobRequest,
  templateAnswer,
  templateParams,
} from '@mags/protocol'
import type { FastifyPluginCallbackZod } from 'fastify-type-provider-zod'
import { answerOnce } from '../http/answer-once.ts'
import { ignoredMembers } from '../http/ignored-members.ts'
import { isLong, sendList } from '../http/send-list.ts'
import { validateRange } from '../http/validate-range.ts'
import { type AnswerWithRunDeps, answerWithRun } from '../job-api/answer-with-run.ts'
import { newDefinition } from '../job-api/change-definition.ts'
import { mergeEnvironment } from '../job-api/make-run.ts'
import { type PrepareRunDeps, prepareFirstRun } from '../job-api/prepare-run.ts'
import { presentRun } from '../job-api/present-job.ts'
import { type ChangeTemplateDeps, findTemplate, newTemplate, unknownTemplate, updateTemplate } from './change-template.ts'
import { presentRevision, presentTemplate } from './present-template.ts'

export interface TemplateRoutesDeps extends ChangeTemplateDeps, AnswerWithRunDeps, PrepareRunDeps {
  /** Name of this machine. */
  readonly hostName: string
}

export const templateRoutes: FastifyPluginCallbackZod<TemplateRoutesDeps> = (app, deps, done) => {
  validateRange(app)
  const tags = ['Job templates']
  const { templates, commits, hostName, clock } = deps
  const failures = { '4xx': errorAnswer, '5xx': errorAnswer }

  app.post(
    '/job-templates',
    {
      schema: { tags, summary: 'Make a job template', body: createTemplateRequest, response: { 201: templateAnswer, ...failures } },
      config: { keepsRawBody: true },
    },
    async (request, reply) => {
      const template = newTemplate(deps, request.identity, request.body)
      const warnings = ignoredMembers(request.rawBody, createTemplateRequest.shape)
      const answer = await answerOnce(deps, request, { job_template: request.rawBody }, async (transaction) => {
        await templates.insert(transaction, template)
        return { ...presentTemplate(template), ...warnings }
      })
      reply.code(201)
      return answer
    },
  )

  app.get(
    '/job-templates',
    { schema: { tags, summary: 'List job templates, newest first', querystring: listTemplatesQuery, response: { 200: listTemplatesAnswer, ...failures } } },
    async (request, reply) => {
      const { page, page_size } = request.query
      const { accountId } = request.identity
      const asked = { offset: (page - 1) * page_size, limit: page_size }
      const items = await templates.measure(accountId, asked)
      if (isLong(items)) {
        const load = async (id: string) => {
          const template = await templates.get(accountId, id)
          return template && presentTemplate(template)
        }
        const { total } = await templates.list(accountId, { ...asked, limit: 0 })
        return await sendList(reply, 'templates', items, load, { total, page, page_size })
      }
      const found = await templates.list(accountId, asked)
      return { templates: found.templates.map(presentTemplate), total: found.total, page, page_size }
    },
  )

  app.get(
    '/job-templates/:id',
    { schema: { tags, summary: 'A job template', params: templateParams, response: { 200: templateAnswer, ...failures } } },
    async (request) => presentTemplate(await findTemplate(deps, request.identity.accountId, request.params.id)),
  )

  app.put(
    '/job-templates/:id',
    {
      schema: {
        tags,
        summary: 'Change a job template: the next revision of it',
        params: templateParams,
        body: changeTemplateRequest,
        response: { 200: templateAnswer, ...failures },
      },
      config: { keepsRawBody: true },
    },
    async (request) => {
      const template = await updateTemplate(deps, request.identity, request.params.id, request.body)
      return { ...presentTemplate(template), ...ignoredMembers(request.rawBody, changeTemplateRequest.shape) }
    },
  )

  app.delete(
    '/job-templates/:id',
    {
      schema: { tags, summary: 'Delete a job template; jobs that were made of it stay', params: templateParams, response: { 200: doneAnswer, ...failures } },
    },
    async (request) => {
      const { id } = await findTemplate(deps, request.identity.accountId, request.params.id)
      if (!(await commits.write((transaction) => templates.remove(transaction, id)))) throw unknownTemplate(request.params.id)
      return { success: true, message: 'Job template deleted' }
    },
  )

  app.post(
    '/job-templates/:id/run',
    {
      schema: {
        tags,
        summary: 'Make a job of the latest revision, and run it',
        params: templateParams,
        body: runJobRequest.nullish(),
        response: { 202: jobRunAnswer, ...failures },
      },
    },
    async (request, reply) => {
      const { identity } = request
      const { id } = await findTemplate(deps, identity.accountId, request.params.id)
      const overrides = request.body?.environment ?? {}
      return await answerWithRun(
        deps,
        { request, reply },
        { run_job_template: id, environment: overrides },
        async (transaction) => {
          const template = (await templates.lock(transaction, id)) ? await templates.get(identity.accountId, id, transaction) : undefined
          if (template === undefined) throw unknownTemplate(request.params.id)
          const { name, description, vcpus, memoryMb, latest } = template
          const environment = mergeEnvironment(latest.environment, overrides)
          const job = { name, description, script: latest.script, vcpus, memory_mb: memoryMb, environment }
          const definition = newDefinition(deps, identity, job, { id, revision: latest.revision })
          return await prepareFirstRun(deps, transaction, definition)
        },
        (run) => presentRun(run, { hostName, now: clock() }),
      )
    },
  )

  app.get(
    '/job-templates/:id/revisions',
    {
      schema: {
        tags,
        summary: 'Revisions of a job template, newest first',
        params: templateParams,
        querystring: listTemplateRevisionsQuery,
        response: { 200: listTemplateRevisionsAnswer, ...failures },
      },
    },
    async (request, reply) => {
      const { page, page_size } = request.query
      const { id } = await findTemplate(deps, request.identity.accountId, request.params.id)
      const asked = { offset: (page - 1) * page_size, limit: page_size }
      const items = await templates.measureRevisions(id, asked)
      if (isLong(items)) {
        const load = async (revisionId: string) => {
          const revision = await templates.getRevision(id, revisionId)
          return revision && presentRevision(revision)
        }
        const { total } = await templates.listRevisions(id, { ...asked, limit: 0 })
        return await sendList(reply, 'revisions', items, load, { total, page, page_size })
      }
      const found = await templates.listRevisions(id, asked)
      return { revisions: found.revisions.map(presentRevision), total: found.total, page, page_size }
    },
  )
  done()
}
