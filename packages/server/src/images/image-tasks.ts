import { randomUUID } from 'node:crypto'
import { type HostApi, type ImageInfo, MagsError } from '@mags/protocol'
import type { Logger } from 'pino'
import type { JobLog } from '../logs/job-log.ts'
import type { LogStore } from '../logs/log-store.ts'
import { timestamp } from '../state/timestamp.ts'
import { temporaryImage } from './dockerfile/build-dockerfile.ts'
import type { ImageTask } from './image-task.ts'
import type { ImageTaskStore } from './store.ts'

export interface ImageTasksDeps {
  readonly taskStore: ImageTaskStore
  readonly logs: LogStore
  readonly host: HostApi
  readonly clock: () => number
  readonly logger: Logger
}

/** Hears how far a task is. */
export interface TaskProgress {
  /** A step in words. */
  say(words: string): void
  /** What a program of the task wrote; settles once it is kept. */
  output(source: 'stdout' | 'stderr', bytes: Uint8Array): Promise<void>
}

export type TaskWork = (progress: TaskProgress, abort: AbortSignal) => Promise<ImageInfo>

/** One that goes on. */
export interface RunningTask {
  readonly task: ImageTask
  /** Settles when it is over; rejects with why it failed. */
  readonly ended: Promise<ImageInfo>
  cancel(reason: MagsError): void
}

const maxTasks = 8
/** Somebody else gets a turn, even when all of these wait for a slow client. */
const maxTasksOfAccount = 4
const keptMs = 30 * 24 * 3600 * 1000
const leftBehind = 'the server ended while the image was made; start it again'

/** Images that are being made: each has a row, a log that is followed like that of a job, and work that can be cancelled. One at a time for each name. */
export class ImageTasks {
  readonly #deps: ImageTasksDeps
  readonly #running = new Map<string, RunningTask & { readonly done: Promise<void> }>()
  /** Those of them whose end is stored: nobody has to wait for what is left to do. */
  readonly #over = new Set<string>()
  #closed = false

  constructor(deps: ImageTasksDeps) {
    this.#deps = deps
  }

  /** Ends what a former server left behind, and forgets what is old. */
  async recover(): Promise<void> {
    const { taskStore, clock, logs, host, logger } = this.#deps
    await taskStore.failRunning(leftBehind, timestamp(clock()))
    for (const id of await taskStore.removeOld(timestamp(clock() - keptMs))) await logs.remove(id)
    for (const { name } of (await host.images.list()).filter((image) => image.current && temporaryImage.test(image.name)))
      await host.images
        .remove(name)
        .catch((error: unknown) => logger.warn({ err: error, image: name }, 'an image that a build left behind could not be removed'))
  }

  /** Stores a task and begins its work. Rejects with MagsError 'image_in_use' while there is one for that name, 'rate_limited' when there are too many. */
  async start(wished: Pick<ImageTask, 'accountId' | 'name' | 'kind' | 'reference'>, work: TaskWork): Promise<RunningTask> {
    const other = this.runningFor(wished.name)
    if (other) throw new MagsError('image_in_use', `image ${wished.name} is being made by task ${other.task.id}; wait for it, or cancel it`)
    if (this.#closed) throw new MagsError('no_capacity', 'the server is about to end')
    const active = [...this.#running.values()].filter(({ task }) => !this.#over.has(task.id))
    if (active.length >= maxTasks) throw new MagsError('rate_limited', `${maxTasks} images are being made; wait until one is done`)
    const ofAccount = active.filter(({ task }) => task.accountId === wished.accountId).length
    if (ofAccount >= maxTasksOfAccount) throw new MagsError('rate_limited', `${ofAccount} images are being made for this account; wait until one is done`)
    const { taskStore, logs, clock } = this.#deps
    const task: ImageTask = {
      ...wished,
      id: randomUUID(),
      status: 'running',
      digest: null,
      error: null,
      createdAt: timestamp(clock()),
      completedAt: null,
    }
    const abort = new AbortController()
    const stored = Promise.withResolvers<void>()
    const log = logs.create(task.id)
    const ended = stored.promise.then(() => work(progressTo(log), abort.signal))
    const done = this.#finish(task, log, ended)
    const running = { task, ended, done, cancel: (reason: MagsError) => abort.abort(reason) }
    // Before anything is awaited: the name is taken from here on.
    this.#running.set(task.id, running)
    await taskStore.insert(task).then(stored.resolve, stored.reject)
    return running
  }

  running(id: string): RunningTask | undefined {
    return this.#running.get(id)
  }

  runningFor(name: string): RunningTask | undefined {
    return [...this.#running.values()].find(({ task }) => task.name === name && !this.#over.has(task.id))
  }

  /** Cancels all, and settles once nothing of them goes on. */
  async close(): Promise<void> {
    this.#closed = true
    for (const { cancel } of this.#running.values()) cancel(new MagsError('no_capacity', leftBehind))
    await Promise.all([...this.#running.values()].map(({ done }) => done))
  }

  async #finish(task: ImageTask, log: JobLog, ended: Promise<ImageInfo>): Promise<void> {
    const { taskStore, logs, clock, logger } = this.#deps
    try {
      const end = await ended.then(
        (image) => ({ status: 'completed' as const, digest: image.digest, error: null }),
        (error: unknown) => ({ status: 'failed' as const, digest: null, error: this.#wordsOf(task, error) }),
      )
      await taskStore.end(task.id, { ...end, completedAt: timestamp(clock()) })
      // Before the log tells the end: whoever has heard of it may begin another.
      this.#over.add(task.id)
      await log.end({ status: end.status === 'completed' ? 'completed' : 'error', exitCode: end.status === 'completed' ? 0 : 1 })
    } catch (error) {
      logger.error({ err: error, task: task.id }, 'the end of an image task could not be stored')
      await log.close()
    } finally {
      logs.release(task.id)
      this.#running.delete(task.id)
      this.#over.delete(task.id)
    }
  }

  #wordsOf(task: ImageTask, error: unknown): string {
    if (error instanceof MagsError) return error.message
    this.#deps.logger.error({ err: error, task: task.id }, 'an image could not be made for an unknown reason')
    return `a fault of the server; its log has more under ${task.id}`
  }
}

function progressTo(log: JobLog): TaskProgress {
  const offsets = { stdout: 0, stderr: 0 }
  return {
    say: (words) => void log.system(words, 'info'),
    output: async (source, bytes) => {
      const offset = offsets[source]
      offsets[source] += bytes.length
      await log.sink({ source, offset, bytes })
    },
  }
}
