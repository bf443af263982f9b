import {
  buildContextLimitBytes,
  createImageRequest,
  defaultImageRequest,
  doneAnswer,
  errorAnswer,
  type HostApi,
  imageAnswer,
  imageArchiveLimitBytes,
  imageParams,
  imageTaskAnswer,
  imageTaskEventsQuery,
  imageTaskParams,
  imageTaskStartedAnswer,
  inspectImageAnswer,
  listImagesAnswer,
  listImagesQuery,
  MagsError,
  pruneBuildCacheAnswer,
  removeImageQuery,
  requestFault,
  type SendImageQuery,
  sendImageQuery,
} from '@mags/protocol'
import type { FastifyRequest } from 'fastify'
import type { FastifyPluginCallbackZod } from 'fastify-type-provider-zod'
import { EventStream } from '../http/event-stream.ts'
import { dropRest } from '../http/received-body.ts'
import { beginning, parseCursor } from '../logs/cursor.ts'
import { followLog, replayLog } from '../logs/follow-log.ts'
import type { LogStore } from '../logs/log-store.ts'
import { buildFromContext } from './build-from-context.ts'
import type { BuildCache } from './cache/build-cache.ts'
import { findVersions } from './find-images.ts'
import { type ImageTask, presentTask } from './image-task.ts'
import type { ImageTasks, RunningTask, TaskWork } from './image-tasks.ts'
import type { ImageUsers } from './image-users.ts'
import { presentImage, presentVersion } from './present-image.ts'
import { removeImage } from './remove-image.ts'
import { SentBody } from './sent-body.ts'
import type { ImageTaskStore } from './store.ts'
import { usersOfVersions } from './users-of-versions.ts'

export interface ImageRoutesDeps {
  readonly host: HostApi
  readonly logs: LogStore
  readonly imageTasks: ImageTasks
  readonly taskStore: ImageTaskStore
  readonly imageUsers: ImageUsers
  readonly contextsDir: string
  readonly buildCache: BuildCache
  readonly shutdown: AbortSignal
}

const archiveTypes = ['application/x-tar', 'application/octet-stream', 'application/gzip', 'application/x-gzip', 'application/zstd', 'application/x-xz']

const isArchive = ({ headers }: Pick<FastifyRequest, 'headers'>) => archiveTypes.includes(headers['content-type']?.split(';')[0]?.trim().toLowerCase() ?? '')

export const imageRoutes: FastifyPluginCallbackZod<ImageRoutesDeps> = (app, deps, done) => {
  const tags = ['Images']
  const failures = { '4xx': errorAnswer, '5xx': errorAnswer }
  const { host, imageTasks, taskStore, imageUsers } = deps
  app.addContentTypeParser(archiveTypes, (_request, _payload, parsed) => parsed(null))

  const findTask = async (accountId: string, id: string): Promise<ImageTask> => {
    const task = await taskStore.find(accountId, id)
    if (task === undefined) throw new MagsError('not_found', `no task ${JSON.stringify(id.slice(0, 64))}`)
    return task
  }

  app.get(
    '/images',
    { schema: { tags, summary: 'List images by name', querystring: listImagesQuery, response: { 200: listImagesAnswer, '4xx': errorAnswer } } },
    async (request) => {
      const { page, page_size } = request.query
      const all = await host.images.list()
      const { defaultImage } = host.capabilities()
      const names = [...new Set(all.map(({ name }) => name))].sort()
      const shown = names.slice((page - 1) * page_size, page * page_size)
      const images = shown.flatMap((name) => {
        const versions = all.filter((image) => image.name === name)
        return presentImage(versions, defaultImage) ?? []
      })
      return { images, total: names.length, page, page_size }
    },
  )

  app.get(
    '/images/:name',
    {
      schema: {
        tags,
        summary: 'All versions of an image, where they come from and who uses them',
        params: imageParams,
        response: { 200: inspectImageAnswer, '4xx': errorAnswer },
      },
    },
    async (request) => {
      const { name } = request.params
      const { accountId } = request.identity
      const versions = await findVersions(host, name)
      const users = usersOfVersions(versions, await imageUsers.list(name))
      return {
        name,
        default: host.capabilities().defaultImage === name,
        versions: versions.map((version) => presentVersion(version, users.get(version.digest) ?? [], accountId)),
        named_by: await imageUsers.namedBy(accountId, name),
      }
    },
  )

  app.delete(
    '/images/:name',
    {
      schema: {
        tags,
        summary: 'Delete an image, or one version of it; not while something needs it',
        params: imageParams,
        querystring: removeImageQuery,
        response: { 200: doneAnswer, ...failures },
      },
    },
    async (request) => {
      await removeImage(deps, request.identity.accountId, request.params.name, request.query.digest)
      return { success: true, message: request.query.digest === undefined ? 'Image deleted' : 'Version deleted' }
    },
  )

  app.put(
    '/images/default',
    { schema: { tags, summary: 'What jobs get that name no image, from now on', body: defaultImageRequest, response: { 200: imageAnswer, ...failures } } },
    async (request) => {
      const versions = await findVersions(host, request.body.name)
      await host.images.setDefault(request.body.name)
      const image = presentImage(versions, host.capabilities().defaultImage)
      if (image === undefined) throw new MagsError('not_found', `no image ${request.body.name}`)
      return image
    },
  )

  app.post(
    '/images',
    {
      schema: {
        tags,
        summary:
          'Make an image: JSON with a recipe or a reference; an archive as the body (OCI layout, docker save, or a root file system; name and reference in the query); or with dockerfile an archive that it is built from. Follow the task',
        querystring: sendImageQuery,
        consumes: ['application/json', ...archiveTypes],
        response: { 202: imageTaskStartedAnswer, ...failures },
      },
      config: { streamsBody: isArchive },
    },
    async (request, reply) => {
      const { accountId } = request.identity
      try {
        const { task } = isArchive(request) ? await receive(deps, accountId, request.raw, request.query) : await order(deps, accountId, request.body)
        reply.code(202)
        return { task_id: task.id, status: 'running' as const }
      } finally {
        dropRest(request.raw)
      }
    },
  )

  app.get(
    '/image-tasks/:id',
    { schema: { tags, summary: 'How far an image is', params: imageTaskParams, response: { 200: imageTaskAnswer, '4xx': errorAnswer } } },
    async (request) => presentTask(await findTask(request.identity.accountId, request.params.id)),
  )

  app.get(
    '/image-tasks/:id/events',
    {
      schema: {
        tags,
        summary: 'Progress as Server-Sent Events: log for each line, and end with status, digest and error',
        params: imageTaskParams,
        querystring: imageTaskEventsQuery,
      },
    },
    async (request, reply) => {
      const { accountId } = request.identity
      const { id } = await findTask(accountId, request.params.id)
      const log = deps.logs.bytes(id)
      const lastEventId = request.headers['last-event-id']
      const cursor = typeof lastEventId === 'string' && lastEventId !== '' ? lastEventId : request.query.after
      const from = cursor === undefined ? beginning : await parseCursor(cursor, log)
      const presentEnd = async () => {
        const { status, digest, error } = await findTask(accountId, id)
        return { status, digest, error }
      }
      const active = deps.logs.active(id)
      using stream = new EventStream(reply, deps.shutdown)
      if (active) await followLog(active, stream, { from, presentEnd })
      else await replayLog(log, { status: 'completed', exitCode: null }, stream, { from, presentEnd })
      return reply
    },
  )

  app.delete(
    '/image-cache',
    { schema: { tags, summary: 'Forget what builds kept of their steps; what a build uses now stays', response: { 200: pruneBuildCacheAnswer, ...failures } } },
    async (request) => {
      const freed = await deps.buildCache.prune(request.identity.accountId)
      return { success: true, message: 'Cache emptied', freed_bytes: freed }
    },
  )

  app.delete(
    '/image-tasks/:id',
    {
      schema: {
        tags,
        summary: 'Cancel what makes an image; nothing happens to one that is over',
        params: imageTaskParams,
        response: { 200: doneAnswer, '4xx': errorAnswer },
      },
    },
    async (request) => {
      const { id } = await findTask(request.identity.accountId, request.params.id)
      const running = imageTasks.running(id)
      running?.cancel(new MagsError('bad_request', 'cancelled'))
      return { success: true, message: running ? 'Task cancelled' : 'Task was over already' }
    },
  )
  done()
}

/** What the body of a JSON request asks for. */
async function order({ host, imageTasks }: ImageRoutesDeps, accountId: string, body: unknown): Promise<RunningTask> {
  const parsed = createImageRequest.safeParse(body)
  if (!parsed.success) throw requestFault(parsed.error)
  const { name, recipe, reference = '' } = parsed.data
  if (recipe !== undefined)
    return await imageTasks.start({ accountId, name, kind: 'recipe', reference: recipe }, (progress, abort) =>
      host.images.create(name, { kind: 'recipe', recipe }, progress.say, abort),
    )
  return await imageTasks.start({ accountId, name, kind: 'registry', reference }, (progress, abort) =>
    host.images.create(name, { kind: 'registry', reference }, progress.say, abort),
  )
}

/** What an archive is for that is sent. Settles once all of it arrived; rejects when that is not wanted. */
async function receive(deps: ImageRoutesDeps, accountId: string, raw: ConstructorParameters<typeof SentBody>[0], query: SendImageQuery): Promise<RunningTask> {
  const { name, dockerfile, build_args: buildArgs = {}, no_cache: noCache = false } = query
  if (name === undefined) throw new MagsError('bad_request', 'name: is required')
  const maxBytes = dockerfile === undefined ? imageArchiveLimitBytes : buildContextLimitBytes
  const content = new SentBody(raw, { maxBytes, tooLarge: `the archive has more than ${maxBytes / 1024 ** 3} GiB` })
  const reference = dockerfile ?? query.reference ?? 'archive.tar'
  const work: TaskWork =
    dockerfile === undefined
      ? (progress, abort) => deps.host.images.create(name, { kind: 'archive', reference, content }, progress.say, abort)
      : buildFromContext(deps, { accountId, name, dockerfile, buildArgs, noCache, content })
  const running = await deps.imageTasks.start({ accountId, name, kind: dockerfile === undefined ? 'archive' : 'dockerfile', reference }, work)
  running.ended.catch(() => undefined)
  await Promise.race([content.consumed, running.ended])
  return running
}
