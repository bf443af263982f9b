import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Logger } from 'pino'
import type { LogBytes } from './cursor.ts'
import { JobLog, type JobLogOptions } from './job-log.ts'
import { logFile } from './log-file.ts'

/** The log files of all jobs, and the open logs of those that are not over. */
export class LogStore {
  readonly #directory: string
  readonly #maxBytes: number
  readonly #clock: () => number
  readonly #logger: Pick<Logger, 'error'> | undefined
  readonly #active = new Map<string, JobLog>()

  constructor(deps: { directory: string; maxBytes: number; clock: () => number; logger?: Pick<Logger, 'error'> }) {
    this.#directory = deps.directory
    this.#maxBytes = deps.maxBytes
    this.#clock = deps.clock
    this.#logger = deps.logger
  }

  /** The log of a job that is about to wait or run; nothing is on disk yet. */
  create(requestId: string, onFirstOutput?: () => void): JobLog {
    const onFull = (words: string, err: unknown) => this.#logger?.error({ err, requestId }, `the log of a job waits: ${words}`)
    const options: JobLogOptions = { path: this.#path(requestId), maxBytes: this.#maxBytes, clock: this.#clock, room: { onFull } }
    const log = new JobLog(onFirstOutput ? { ...options, onFirstOutput } : options)
    this.#active.set(requestId, log)
    return log
  }

  active(requestId: string): JobLog | undefined {
    return this.#active.get(requestId)
  }

  bytes(requestId: string): LogBytes {
    return this.#active.get(requestId) ?? logFile(this.#path(requestId))
  }

  /** The job is over; its log is a file like any other. */
  release(requestId: string): void {
    this.#active.delete(requestId)
  }

  /** Nothing is left of a closed log. */
  async remove(requestId: string): Promise<void> {
    this.#active.delete(requestId)
    await rm(this.#path(requestId), { force: true })
  }

  async closeAll(): Promise<void> {
    await Promise.all([...this.#active.values()].map((log) => log.close()))
  }

  #path(requestId: string): string {
    return join(this.#directory, requestId.slice(0, 2), `${requestId}.log`)
  }
}
