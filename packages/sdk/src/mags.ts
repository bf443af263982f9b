import { resolveConfig } from './config/resolve-config.ts'
import { fetchHealth, fetchPoolStatus } from './host/pool.ts'
import { Requester } from './http/requester.ts'
import { fetchTransport, type Transport } from './http/transport.ts'
import { type ExecEvent, type ExecOptions, execCommand, execStream } from './jobs/exec.ts'
import { type FollowedRow, type FollowOptions, followEvents, followLogs, type JobEvent } from './jobs/follow-events.ts'
import { fetchLogs, type LogsOptions } from './jobs/logs.ts'
import { type RunOptions, type RunResult, runAndWait, submitJob } from './jobs/run.ts'
import { type CallOptions, fetchStatus, findJob, type ListOptions, listJobs, stopJob, type UpdateOptions, updateJob } from './jobs/status.ts'
import type { DoneWire, ExecWire, HealthWire, JobListWire, LogsWire, PoolStatusWire, StatusWire, SubmitWire } from './wire/answers.ts'
import type { Answer } from './wire/names.ts'

export interface MagsOptions {
  /** Default: MAGS_API_TOKEN, MAGS_TOKEN, `~/.mags/config.json`. null: none. */
  apiToken?: string | null | undefined
  /** Default: MAGS_API_URL, `~/.mags/config.json`, `http://127.0.0.1:4747`. */
  apiUrl?: string | undefined
  /** Milliseconds one request may take; default 30,000. Not a limit of scripts, commands or streams. */
  timeout?: number | undefined
  /** How often a request is sent again after a lost connection or a 503 with `Retry-After`; default 3. */
  maxRetries?: number | undefined
  /** Whether a refused connection counts as lost (the server may be restarting); default true. */
  retryRefused?: boolean | undefined
  /** How requests go out; default: the platform's fetch. */
  transport?: Transport | undefined
}

/**
 * A client of one Mags server. Jobs are named by request id or by name. All methods throw MagsApiError for an answer that is an error
 * and MagsConnectionError when there is none; answers carry every member as the API names it and in camelCase.
 */
export class Mags {
  readonly apiUrl: string
  readonly #requester: Requester

  /** Throws TypeError when the address is not an http(s) URL. */
  constructor(options: MagsOptions = {}) {
    const config = resolveConfig(options)
    if (config.warning !== undefined) process.emitWarning(config.warning)
    this.apiUrl = config.apiUrl
    this.#requester = new Requester({
      apiUrl: config.apiUrl,
      apiToken: config.apiToken,
      timeoutMs: options.timeout ?? 30_000,
      maxRetries: options.maxRetries ?? 3,
      retryRefused: options.retryRefused ?? true,
      transport: options.transport ?? fetchTransport,
    })
  }

  /** Submits a script; resolves when the server has it on record. */
  async run(script: string, options?: RunOptions): Promise<Answer<SubmitWire>> {
    return await submitJob(this.#requester, script, options)
  }

  /** Submits a script and waits for its end; `stdout`, `stderr` and `logs` are in the result. A non-zero exit is a result. */
  async runAndWait(script: string, options?: RunOptions): Promise<RunResult> {
    return await runAndWait(this.#requester, script, options)
  }

  /** Runs one command in a job's sandbox. */
  async exec(id: string, command: string, options?: ExecOptions): Promise<Answer<ExecWire>> {
    return await execCommand(this.#requester, id, command, options)
  }

  /** The same, with the output as it comes. */
  execStream(id: string, command: string, options?: ExecOptions): AsyncGenerator<ExecEvent> {
    return execStream(this.#requester, id, command, options)
  }

  /** The status of the newest unfinished job of that name or id, else of the newest; null when there is none. */
  async findJob(nameOrId: string, options?: CallOptions): Promise<Answer<StatusWire> | null> {
    return await findJob(this.#requester, nameOrId, options)
  }

  async status(id: string, options?: CallOptions): Promise<Answer<StatusWire>> {
    return await fetchStatus(this.#requester, id, options)
  }

  /** One page of the log; `next` of the answer goes on as `after`. */
  async logs(id: string, options?: LogsOptions): Promise<Answer<LogsWire>> {
    return await fetchLogs(this.#requester, id, options)
  }

  /** Every row, as it comes, until the job ends; survives lost connections and restarts of the server. */
  followLogs(id: string, options?: FollowOptions): AsyncGenerator<FollowedRow> {
    return followLogs(this.#requester, id, options)
  }

  /** Like {@link followLogs}, with the end of the script and of the job as events. */
  followEvents(id: string, options?: FollowOptions): AsyncGenerator<JobEvent> {
    return followEvents(this.#requester, id, options)
  }

  /** Newest first. */
  async list(options?: ListOptions): Promise<Answer<JobListWire>> {
    return await listJobs(this.#requester, options)
  }

  /** Idempotent. */
  async stop(id: string, options?: CallOptions): Promise<Answer<DoneWire>> {
    return await stopJob(this.#requester, id, options)
  }

  async updateJob(id: string, options: UpdateOptions): Promise<Answer<DoneWire>> {
    return await updateJob(this.#requester, id, options)
  }

  async poolStatus(options?: CallOptions): Promise<Answer<PoolStatusWire>> {
    return await fetchPoolStatus(this.#requester, options)
  }

  /** Works without a token. */
  async health(options?: CallOptions): Promise<Answer<HealthWire>> {
    return await fetchHealth(this.#requester, options)
  }
}
