import {
  createMicrovmAnswer,
  createMicrovmRequest,
  doneAnswer,
  errorAnswer,
  listMicrovmsAnswer,
  listMicrovmsQuery,
  type MicrovmAnswer,
  microvmActionAnswer,
  microvmAnswer,
  microvmKeyFile,
  microvmParams,
  microvmSshAnswer,
} from '@mags/protocol'
import type { FastifyReply } from 'fastify'
import type { FastifyPluginCallbackZod } from 'fastify-type-provider-zod'
import { type ChangeMicrovmDeps, deleteMicrovm, findMicrovm, restartMicrovm, startMicrovm, stopMicrovm } from './change-microvm.ts'
import { type CreateMicrovmDeps, createMicrovm } from './create-microvm.ts'
import type { Microvm } from './microvm.ts'
import { presentMicrovm } from './present-microvm.ts'
import { downloadKey, type MicrovmSshDeps, sshConnection } from './ssh-microvm.ts'

export interface MicrovmRoutesDeps extends CreateMicrovmDeps, ChangeMicrovmDeps, MicrovmSshDeps {}

export const microvmRoutes: FastifyPluginCallbackZod<MicrovmRoutesDeps> = (app, deps, done) => {
  const tags = ['MicroVMs']
  const failures = { '4xx': errorAnswer, '5xx': errorAnswer }
  const find = (accountId: string, id: string) => findMicrovm(deps, accountId, id)

  app.post(
    '/microvms',
    {
      schema: { tags, summary: 'Make a microVM and start it', body: createMicrovmRequest, response: { 201: createMicrovmAnswer, ...failures } },
      config: { keepsRawBody: true },
    },
    async (request, reply) => {
      const answer = await createMicrovm(deps, request, request.body)
      reply.code(201)
      return answer
    },
  )

  app.get(
    '/microvms',
    { schema: { tags, summary: 'List microVMs, newest first', querystring: listMicrovmsQuery, response: { 200: listMicrovmsAnswer, '4xx': errorAnswer } } },
    async (request) => {
      const { page, page_size } = request.query
      const found = await deps.microvms.list(request.identity.accountId, { offset: (page - 1) * page_size, limit: page_size })
      return { microvms: await presentAll(deps, found.microvms), total: found.total, page, page_size }
    },
  )

  app.get(
    '/microvms/:id',
    { schema: { tags, summary: 'A microVM', params: microvmParams, response: { 200: microvmAnswer, '4xx': errorAnswer } } },
    async (request) => await presentOne(deps, await find(request.identity.accountId, request.params.id)),
  )

  app.delete(
    '/microvms/:id',
    {
      schema: { tags, summary: 'Delete a microVM with its disk and keys, running or not', params: microvmParams, response: { 200: doneAnswer, ...failures } },
    },
    async (request) => {
      await deleteMicrovm(deps, await find(request.identity.accountId, request.params.id))
      return { success: true, message: 'MicroVM deleted' }
    },
  )

  const actions = [
    ['start', 'Start a microVM; answers once it runs, after 10 s at the latest', startMicrovm],
    ['stop', 'End its services, save its disk and stop it; answers once that is done, after 30 s at the latest', stopMicrovm],
    ['restart', 'Stop a microVM and start it again; answers once it runs, after 40 s at the latest', restartMicrovm],
  ] as const
  for (const [name, summary, act] of actions) {
    app.post(
      `/microvms/:id/${name}`,
      { schema: { tags, summary, params: microvmParams, response: { 200: microvmActionAnswer, ...failures } } },
      async (request) => await act(deps, await find(request.identity.accountId, request.params.id)),
    )
  }

  app.get(
    '/microvms/:id/ssh-connection',
    {
      schema: { tags, summary: 'How to connect by SSH, whether it runs or not', params: microvmParams, response: { 200: microvmSshAnswer, ...failures } },
    },
    async (request) => {
      const microvm = await find(request.identity.accountId, request.params.id)
      return await sshConnection(deps, microvm, await presentOne(deps, microvm))
    },
  )

  app.get(
    '/microvms/:id/ssh-keys/download',
    {
      schema: {
        tags,
        summary: 'The private key that was made for it, as a file; 404 where the user brought keys',
        params: microvmParams,
        produces: ['application/x-pem-file'],
        response: failures,
      },
    },
    async (request, reply) => {
      const microvm = await find(request.identity.accountId, request.params.id)
      return await sendKey(reply, microvmKeyFile(microvm.id), await downloadKey(deps, microvm))
    },
  )
  done()
}

async function sendKey(reply: FastifyReply, fileName: string, key: string) {
  reply.header('content-type', 'application/x-pem-file').header('content-disposition', `attachment; filename="${fileName}"`).header('cache-control', 'no-store')
  return await reply.send(Buffer.from(key))
}

async function presentAll(deps: MicrovmRoutesDeps, microvms: readonly Microvm[]): Promise<MicrovmAnswer[]> {
  const jobs = await deps.microvms.newestJobs(microvms.map(({ id }) => id))
  const ports = await deps.access.sshPorts(
    [...jobs.values()].flatMap(({ workspaceStorageId }) => (workspaceStorageId === null ? [] : [`w:${workspaceStorageId}`])),
  )
  return microvms.map((microvm) => {
    const job = jobs.get(microvm.id)
    const run = job && deps.dispatcher.find(job.requestId)
    return presentMicrovm(microvm, {
      job,
      isUp: run && deps.keeper.isUp(run),
      trouble: run?.trouble.words,
      appsUrl: deps.appsUrlNow(),
      sshPort: ports.get(`w:${job?.workspaceStorageId}`) ?? null,
    })
  })
}

async function presentOne(deps: MicrovmRoutesDeps, microvm: Microvm): Promise<MicrovmAnswer> {
  const [answer] = await presentAll(deps, [microvm])
  return answer as MicrovmAnswer
}
