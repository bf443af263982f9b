import {
  cancelJobAnswer,
  errorAnswer,
  execAnswer,
  isFinal,
  jobIdParams,
  jobSshRequest,
  logsAnswer,
  logsQuery,
  MagsError,
  runStatusAnswer,
  runStatusOf,
  vmInfoAnswer,
} from '@mags/protocol'
import type { FastifyPluginCallbackZod } from 'fastify-type-provider-zod'
import { goneSignal } from '../http/gone-signal.ts'
import { serverTiming } from '../http/server-timing.ts'
import type { Dispatcher } from '../jobs/dispatcher.ts'
import { execJob } from '../jobs/exec-job.ts'
import type { Job } from '../jobs/job.ts'
import type { JobRun } from '../jobs/job-run.ts'
import { startSteps } from '../jobs/start-steps.ts'
import type { LogEnd } from '../logs/job-log.ts'
import { readTail } from '../logs/read-tail.ts'
import { type SendLogDeps, sendLog } from '../logs/send-log.ts'
import { type FindDefinitionDeps, findRun } from './find-definition.ts'
import { presentRunStatus, presentVmInfo } from './present-run-status.ts'

export interface RunRoutesDeps extends SendLogDeps, FindDefinitionDeps {
  readonly dispatcher: Dispatcher
  readonly appsUrlNow: () => string | undefined
  readonly clock: () => number
  /** Name of this machine: the `agent_id` of what runs on it. */
  readonly hostName: string
}

const tail = { lines: 1000, bytes: 256 * 1024, sources: ['stdout', 'stderr'] } as const
const defaultSshTimeoutSeconds = 30

/** What is asked of one run, or of the newest of a job. */
export const runRoutes: FastifyPluginCallbackZod<RunRoutesDeps> = (app, deps, done) => {
  const tags = ['Jobs']
  const failures = { '4xx': errorAnswer, '5xx': errorAnswer }
  const { dispatcher, clock, hostName } = deps

  app.get(
    '/jobs/:id/status',
    { schema: { tags, summary: 'Status of a run', params: jobIdParams, response: { 200: runStatusAnswer, ...failures } } },
    async (request, reply) => {
      const run = await findRun(deps, request.identity.accountId, request.params.id)
      const { timings: live, trouble } = dispatcher.find(run.requestId) ?? {}
      if (run.timings.queueMs !== null) reply.header('server-timing', serverTiming(startSteps(run)))
      const lines = await readTail(deps.logs.bytes(run.requestId), tail)
      return presentRunStatus(run, { appsUrl: deps.appsUrlNow(), live, lines, hostName, now: clock(), trouble: trouble?.words })
    },
  )

  app.get(
    '/jobs/:id/logs',
    {
      schema: {
        tags,
        summary: 'Rows of the log of a run; with follow=true as Server-Sent Events until it is over',
        params: jobIdParams,
        querystring: logsQuery,
        response: { 200: logsAnswer, ...failures },
      },
    },
    async (request, reply) => {
      const run = await findRun(deps, request.identity.accountId, request.params.id)
      const presentEnd = (end: LogEnd) => ({ status: runStatusOf({ ...end, persistent: run.persistent }), exit_code: end.exitCode })
      return (await sendLog(deps, run, request, reply, presentEnd)) ?? reply
    },
  )

  app.get(
    '/jobs/:id/vm-info',
    { schema: { tags, summary: 'Machine and addresses of a run', params: jobIdParams, response: { 200: vmInfoAnswer, ...failures } } },
    async (request) => presentVmInfo(await findRun(deps, request.identity.accountId, request.params.id), hostName),
  )

  app.post(
    '/jobs/:id/cancel',
    { schema: { tags, summary: 'Cancel a run; one that is over stays as it is', params: jobIdParams, response: { 200: cancelJobAnswer, ...failures } } },
    async (request) => {
      const run = await findRun(deps, request.identity.accountId, request.params.id)
      const wasOver = isFinal(run.status)
      if (!wasOver) await dispatcher.find(run.requestId)?.stop()
      const status = runStatusOf(wasOver ? run : ((await deps.store.get(run.requestId)) ?? run))
      return { success: true, message: status === 'cancelled' && !wasOver ? 'Job cancelled' : `Job is over already (${status})`, status }
    },
  )

  app.post(
    '/jobs/:id/ssh',
    {
      schema: { tags, summary: 'Run a command in a job that runs', params: jobIdParams, body: jobSshRequest, response: { 200: execAnswer, ...failures } },
    },
    async (request, reply) => {
      const job = await findRun(deps, request.identity.accountId, request.params.id)
      const run = runForCommand(job, dispatcher.find(job.requestId))
      const gone = goneSignal(reply)
      using use = await run.uses.use('exec', gone)
      const { command, timeout_seconds } = request.body
      const answer = await execJob(run, { command, timeout_seconds: timeout_seconds ?? defaultSshTimeoutSeconds, environment: {} }, gone)
      reply.header('server-timing', serverTiming({ wake: use.wakeMs, exec: answer.duration_ms }))
      return answer
    },
  )
  done()
}

/** The run in which a command can be run; throws MagsError('job_not_running') that says why not. */
function runForCommand(job: Job, run: JobRun | undefined): JobRun {
  if (job.status === 'pending') throw new MagsError('job_not_running', `job ${job.name} has not started yet; try again once its status is in_progress`)
  if (isFinal(job.status) || run === undefined)
    throw new MagsError(
      'job_not_running',
      `job ${job.name} is over (status: ${runStatusOf(job)}); one made with persist can be used after its script has ended`,
    )
  return run
}
