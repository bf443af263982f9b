import {
  doneAnswer,
  errorAnswer,
  jobParams,
  listSandboxFilesAnswer,
  listSandboxFilesQuery,
  MagsError,
  removeSandboxFileQuery,
  sandboxPathQuery,
  sandboxWriteLimitBytes,
  writeSandboxFileQuery,
} from '@mags/protocol'
import type { FastifyRequest } from 'fastify'
import type { FastifyPluginCallbackZod } from 'fastify-type-provider-zod'
import { dropRest, receivedBody } from '../http/received-body.ts'
import type { Dispatcher } from '../jobs/dispatcher.ts'
import { runForExec } from '../jobs/exec-job.ts'
import type { JobRun } from '../jobs/job-run.ts'
import { findJob } from '../jobs/routes.ts'
import type { JobStore } from '../jobs/store.ts'
import { packFolder, unpackFolder } from './archive.ts'
import { octal, sendFile } from './send-file.ts'

export interface SandboxFileRoutesDeps {
  readonly store: JobStore
  readonly dispatcher: Dispatcher
}

const tooLarge = 'at most 1 GiB in one file or archive'

export const sandboxFileRoutes: FastifyPluginCallbackZod<SandboxFileRoutesDeps> = (app, deps, done) => {
  const tags = ['Files of a job']
  const errors = { '4xx': errorAnswer, '5xx': errorAnswer }
  // A body is the content, whatever it says it is.
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_request, _payload, parsed) => parsed(null))

  const running = async (request: FastifyRequest): Promise<JobRun> => {
    const { id } = request.params as { id: string }
    const job = await findJob(deps.store, request.identity.accountId, id)
    return runForExec(job, deps.dispatcher.find(job.requestId))
  }

  /** Gives the body to `take`; what a refusal leaves of it is dropped. */
  const withBody = async (request: FastifyRequest, take: (content: AsyncIterable<Uint8Array>) => Promise<void>): Promise<void> => {
    try {
      if (Number(request.headers['content-length']) > sandboxWriteLimitBytes) throw new MagsError('too_large', tooLarge)
      await take(receivedBody(request.raw, { maxBytes: sandboxWriteLimitBytes, tooLarge }))
    } catch (error) {
      dropRest(request.raw)
      throw error
    }
  }

  for (const method of ['GET', 'HEAD'] as const) {
    app.route({
      method,
      url: '/mags-jobs/:id/files',
      schema: { tags, summary: 'Read a file of a running job; one Range, HEAD', params: jobParams, querystring: sandboxPathQuery, response: errors },
      handler: async (request, reply) => {
        const { path } = request.query as { path: string }
        return await sendFile(request, reply, (await running(request)).uses.files(), path)
      },
    })
  }

  app.put(
    '/mags-jobs/:id/files',
    {
      schema: {
        tags,
        summary: 'Write a file of a running job: the body is its content, at most 1 GiB; parents are made, and it replaces what is there once it is whole',
        params: jobParams,
        querystring: writeSandboxFileQuery,
        consumes: ['application/octet-stream'],
        response: { 200: doneAnswer, ...errors },
      },
      config: { streamsBody: true },
    },
    async (request) => {
      const { path, mode } = request.query
      await withBody(request, async (content) => {
        await (await running(request)).uses.files().write(path, content, mode === undefined ? {} : { mode })
      })
      return { success: true, message: 'File written' }
    },
  )

  app.delete(
    '/mags-jobs/:id/files',
    {
      schema: {
        tags,
        summary: 'Delete a file of a running job, or with recursive=true a folder',
        params: jobParams,
        querystring: removeSandboxFileQuery,
        response: { 200: doneAnswer, ...errors },
      },
    },
    async (request) => {
      const { path, recursive } = request.query
      await (await running(request)).uses.files().remove(path, { recursive })
      return { success: true, message: 'Deleted' }
    },
  )

  app.get(
    '/mags-jobs/:id/files/list',
    {
      schema: {
        tags,
        summary: 'List a folder of a running job',
        params: jobParams,
        querystring: listSandboxFilesQuery,
        response: { 200: listSandboxFilesAnswer, ...errors },
      },
    },
    async (request) => {
      const { path, limit } = request.query
      const { entries, truncated } = await (await running(request)).uses.files().list(path, limit)
      const present = entries.map(({ name, type, sizeBytes, mode, modifiedAt }) => ({ name, type, size: sizeBytes, mode: octal(mode), mtime: modifiedAt }))
      return { path, entries: present, truncated }
    },
  )

  app.get(
    '/mags-jobs/:id/files/archive',
    {
      schema: {
        tags,
        summary: 'A folder of a running job as a tar archive, made by tar inside: judge its names before unpacking it',
        params: jobParams,
        querystring: sandboxPathQuery,
      },
    },
    async (request, reply) => {
      const { path } = request.query
      const run = await running(request)
      if ((await run.uses.files().stat(path)).type !== 'directory') throw new MagsError('bad_request', 'path: is not a folder; GET …/files has files')
      reply.headers({ 'content-type': 'application/x-tar', 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' })
      return reply.send(packFolder(run.uses, path))
    },
  )

  app.put(
    '/mags-jobs/:id/files/archive',
    {
      schema: {
        tags,
        summary: 'Unpack a tar archive (the body, at most 1 GiB) in a folder of a running job, which is made when it is not there',
        params: jobParams,
        querystring: sandboxPathQuery,
        consumes: ['application/x-tar'],
        response: { 200: doneAnswer, ...errors },
      },
      config: { streamsBody: true },
    },
    async (request, reply) => {
      const gone = new AbortController()
      reply.raw.once('close', () => gone.abort())
      await withBody(request, async (content) => {
        await unpackFolder((await running(request)).uses, request.query.path, content, gone.signal)
      })
      return { success: true, message: 'Archive unpacked' }
    },
  )
  done()
}
