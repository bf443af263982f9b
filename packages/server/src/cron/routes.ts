import {
  createCronRequest,
  cronAnswer,
  cronParams,
  cronRunAnswer,
  doneAnswer,
  errorAnswer,
  listCronRunsAnswer,
  listCronRunsQuery,
  listCronsAnswer,
  listCronsQuery,
  updateCronRequest,
} from '@mags/protocol'
import type { FastifyPluginCallbackZod } from 'fastify-type-provider-zod'
import { type AnswerOnceDeps, answerOnce } from '../http/answer-once.ts'
import { timestamp } from '../state/timestamp.ts'
import { findCron, prepareCron, unknownCron, updateCron } from './change-cron.ts'
import type { Cron } from './cron.ts'
import type { CronScheduler } from './cron-scheduler.ts'
import { presentCron, presentRun } from './present-cron.ts'
import { startRun } from './start-run.ts'
import type { SubmitRunDeps } from './submit-run.ts'

export interface CronRoutesDeps extends SubmitRunDeps, AnswerOnceDeps {
  readonly cronScheduler: CronScheduler
}

export const cronRoutes: FastifyPluginCallbackZod<CronRoutesDeps> = (app, deps, done) => {
  const tags = ['Cron']
  const { crons, cronScheduler, clock } = deps
  const failures = { '4xx': errorAnswer, '5xx': errorAnswer }
  const present = async (cron: Cron) => presentCron(cron, (await crons.lastRuns([cron.cronId])).get(cron.cronId))

  app.post(
    '/mags-cron',
    {
      schema: { tags, summary: 'Run a script at set times', body: createCronRequest, response: { 201: cronAnswer, ...failures } },
      config: { keepsRawBody: true },
    },
    async (request, reply) => {
      const store = await prepareCron(deps, request.identity.accountId, request.rawBody)
      const answer = await answerOnce(deps, request, { cron: request.rawBody }, async (transaction) => presentCron(await store(transaction), undefined))
      cronScheduler.wake()
      reply.code(201)
      return answer
    },
  )

  app.get(
    '/mags-cron',
    { schema: { tags, summary: 'List crons, newest first', querystring: listCronsQuery, response: { 200: listCronsAnswer, '4xx': errorAnswer } } },
    async (request) => {
      const { page, page_size } = request.query
      const found = await crons.list(request.identity.accountId, { offset: (page - 1) * page_size, limit: page_size })
      const lastRuns = await crons.lastRuns(found.crons.map(({ cronId }) => cronId))
      return { crons: found.crons.map((cron) => presentCron(cron, lastRuns.get(cron.cronId))), total: found.total, page, page_size }
    },
  )

  app.get(
    '/mags-cron/:id',
    { schema: { tags, summary: 'A cron', params: cronParams, response: { 200: cronAnswer, '4xx': errorAnswer } } },
    async (request) => await present(await findCron(deps, request.identity.accountId, request.params.id)),
  )

  app.patch(
    '/mags-cron/:id',
    {
      schema: { tags, summary: 'Change, enable or disable a cron', params: cronParams, body: updateCronRequest, response: { 200: cronAnswer, ...failures } },
      config: { keepsRawBody: true },
    },
    async (request) => {
      const cron = await updateCron(deps, request.identity.accountId, request.params.id, request.rawBody)
      cronScheduler.wake()
      return await present(cron)
    },
  )

  app.delete(
    '/mags-cron/:id',
    {
      schema: { tags, summary: 'Remove a cron and its history; jobs it started go on', params: cronParams, response: { 200: doneAnswer, '4xx': errorAnswer } },
    },
    async (request) => {
      const { cronId } = await findCron(deps, request.identity.accountId, request.params.id)
      await crons.remove(cronId)
      return { success: true, message: 'Cron removed' }
    },
  )

  app.post(
    '/mags-cron/:id/run',
    {
      schema: {
        tags,
        summary: 'Run a cron now, also a disabled one; its overlap rule holds',
        params: cronParams,
        response: { 202: cronRunAnswer, ...failures },
      },
    },
    async (request, reply) => {
      const cron = await findCron(deps, request.identity.accountId, request.params.id)
      const { run_id: runId } = await answerOnce(deps, request, { run_cron: cron.cronId }, async (transaction) => {
        const now = timestamp(clock())
        if (!(await crons.lock(transaction, cron.cronId))) throw unknownCron(request.params.id)
        const run = await startRun(crons, transaction, cron, { scheduledFor: now, cause: 'manual', now })
        return { run_id: run?.runId ?? '' }
      })
      await cronScheduler.submitNow(runId)
      const run = await crons.getRun(runId)
      if (run === undefined) throw unknownCron(request.params.id)
      reply.code(202)
      return presentRun(run)
    },
  )

  app.get(
    '/mags-cron/:id/runs',
    {
      schema: {
        tags,
        summary: 'What became of the last 100 runs, newest first',
        params: cronParams,
        querystring: listCronRunsQuery,
        response: { 200: listCronRunsAnswer, '4xx': errorAnswer },
      },
    },
    async (request) => {
      const { page, page_size } = request.query
      const { cronId } = await findCron(deps, request.identity.accountId, request.params.id)
      const found = await crons.listRuns(cronId, { offset: (page - 1) * page_size, limit: page_size })
      return { runs: found.runs.map(presentRun), total: found.total, page, page_size }
    },
  )
  done()
}
