import { basename } from 'node:path'
import { type OnProgress, openLocalFile, withProgress } from '../files/local-file.ts'
import { type Bytes, type Content, contentFrom } from '../http/content.ts'
import type { Requester } from '../http/requester.ts'
import { type FollowedRow, type FollowOptions, followEventsOf } from '../jobs/follow-events.ts'
import type { CallOptions, PageOptions } from '../jobs/status.ts'
import type { DoneWire } from '../wire/answers.ts'
import type { ImageListWire, ImageTaskStartedWire, ImageTaskWire, ImageWire, InspectedImageWire, PrunedCacheWire } from '../wire/image-answers.ts'
import { type Answer, toWire } from '../wire/names.ts'

/** What an image is built from: a recipe of the server, or a Dockerfile in an archive of what it copies from. */
export type BuildImageOptions = CallOptions &
  (
    | { readonly recipe: string /** Default: that of the recipe. */; readonly name?: string | undefined }
    | {
        readonly name: string
        /** A tar archive, plain or packed with gzip. */
        readonly context: Bytes
        /** A file of the archive; default `Dockerfile`. */
        readonly dockerfile?: string | undefined
        readonly buildArgs?: Readonly<Record<string, string>> | undefined
        /** Runs every step, also those that were run before. */
        readonly noCache?: boolean | undefined
      }
  )

/** Where an image comes from that is there already: a registry, or an archive (an OCI layout, what `docker save` writes, or a root file system). */
export type ImportImageOptions = CallOptions & { readonly name: string } & (
    | { /** Such as `docker.io/library/alpine:3.20`. */ readonly reference: string }
    | { /** Path of an archive on this machine. */ readonly file: string; readonly onProgress?: OnProgress | undefined }
    | { readonly content: Bytes /** What the archive is called in the list. */; readonly fileName?: string | undefined }
  )

export type ImageTaskEvent =
  | { readonly type: 'log'; readonly row: FollowedRow }
  /** `digest` is that of the new version; `error` says why there is none. */
  | { readonly type: 'end'; readonly status: 'completed' | 'failed'; readonly digest: string | null; readonly error: string | null }

/** Without any part going out, and for the answer after the last: an archive is read as it comes. */
const silenceLimitMs = 600_000

/** Images of a server. Making one is a task: `followTask` tells how far it is. */
export class ImagesClient {
  readonly #requester: Requester

  constructor(requester: Requester) {
    this.#requester = requester
  }

  /** By name. */
  async list(options: PageOptions = {}): Promise<Answer<ImageListWire>> {
    const { signal, ...paging } = options
    return await this.#requester.json<ImageListWire>({ method: 'GET', path: '/images', query: toWire(paging) as Record<string, number>, signal })
  }

  /** All its versions, and who uses them. */
  async get(name: string, options: CallOptions = {}): Promise<Answer<InspectedImageWire>> {
    return await this.#requester.json<InspectedImageWire>({ method: 'GET', path: imagePath(name), signal: options.signal })
  }

  /** All of it, or one version. Refused while something needs it. */
  async remove(name: string, options: CallOptions & { digest?: string | undefined } = {}): Promise<Answer<DoneWire>> {
    return await this.#requester.json<DoneWire>({ method: 'DELETE', path: imagePath(name), query: { digest: options.digest }, signal: options.signal })
  }

  /** What jobs get that name no image, from now on. */
  async setDefault(name: string, options: CallOptions = {}): Promise<Answer<ImageWire>> {
    return await this.#requester.json<ImageWire>({ method: 'PUT', path: '/images/default', body: { name }, repeatable: true, signal: options.signal })
  }

  async build(options: BuildImageOptions): Promise<Answer<ImageTaskStartedWire>> {
    if ('recipe' in options) return await this.#order({ name: options.name ?? options.recipe, recipe: options.recipe }, options.signal)
    const { name, context, dockerfile = 'Dockerfile', buildArgs, noCache, signal } = options
    const query = { name, dockerfile, build_args: buildArgs === undefined ? undefined : JSON.stringify(buildArgs), no_cache: noCache ? 'true' : undefined }
    return await this.#send(query, contentFrom(context, 'application/x-tar').content, signal)
  }

  async import(options: ImportImageOptions): Promise<Answer<ImageTaskStartedWire>> {
    const { name, signal } = options
    if ('reference' in options) return await this.#order({ name, reference: options.reference }, signal)
    if ('content' in options)
      return await this.#send({ name, reference: options.fileName }, contentFrom(options.content, 'application/octet-stream').content, signal)
    await using file = await openLocalFile(options.file)
    return await this.#send({ name, reference: basename(options.file) }, withProgress(file.content, options.onProgress), signal)
  }

  /** Forgets what builds of this account kept of their steps, but for what a build uses now. */
  async pruneCache(options: CallOptions = {}): Promise<Answer<PrunedCacheWire>> {
    return await this.#requester.json<PrunedCacheWire>({ method: 'DELETE', path: '/image-cache', repeatable: true, signal: options.signal })
  }

  async task(taskId: string, options: CallOptions = {}): Promise<Answer<ImageTaskWire>> {
    return await this.#requester.json<ImageTaskWire>({ method: 'GET', path: taskPath(taskId), signal: options.signal })
  }

  /** Nothing happens to one that is over. */
  async cancelTask(taskId: string, options: CallOptions = {}): Promise<Answer<DoneWire>> {
    return await this.#requester.json<DoneWire>({ method: 'DELETE', path: taskPath(taskId), repeatable: true, signal: options.signal })
  }

  /** What a task says, from its beginning to its end; a lost connection is taken up again. */
  async *followTask(taskId: string, options: Omit<FollowOptions, 'source'> = {}): AsyncGenerator<ImageTaskEvent> {
    for await (const event of followEventsOf<'completed' | 'failed'>(this.#requester, taskPath(taskId, '/events'), options)) {
      if (event.type === 'log') yield event
      if (event.type !== 'end') continue
      const { digest, error } = await this.task(taskId, { signal: options.signal })
      yield { type: 'end', status: event.status, digest, error }
    }
  }

  async #order(body: object, signal: AbortSignal | undefined): Promise<Answer<ImageTaskStartedWire>> {
    return await this.#requester.json<ImageTaskStartedWire>({ method: 'POST', path: '/images', body, signal })
  }

  async #send(query: Record<string, string | undefined>, content: Content, signal: AbortSignal | undefined): Promise<Answer<ImageTaskStartedWire>> {
    // Never sent twice: what was sent first may be on its way to become an image.
    return await this.#requester.json<ImageTaskStartedWire>({ method: 'POST', path: '/images', query, content, once: true, timeoutMs: silenceLimitMs, signal })
  }
}

function imagePath(name: string): string {
  if (name === '') throw new TypeError('The name of an image must not be empty.')
  return `/images/${encodeURIComponent(name)}`
}

function taskPath(id: string, rest = ''): string {
  if (id === '') throw new TypeError('The id of a task must not be empty.')
  return `/image-tasks/${encodeURIComponent(id)}${rest}`
}
