import type { Requester } from '../http/requester.ts'
import { type FollowOptions, followEventsOf, type JobEvent } from '../jobs/follow-events.ts'
import type { LogsOptions } from '../jobs/logs.ts'
import type { RunOptions } from '../jobs/run.ts'
import type { CallOptions, PageOptions } from '../jobs/status.ts'
import type { DoneWire, ExecWire } from '../wire/answers.ts'
import type {
  CancelJobWire,
  JobCreatedWire,
  JobDetailsWire,
  JobLogsWire,
  JobRunListWire,
  JobRunState,
  JobRunWire,
  JobStatusWire,
  JobWire,
  JobWireList,
  VmInfoWire,
} from '../wire/jobs-api-answers.ts'
import { type Answer, toWire } from '../wire/names.ts'

interface JobFields {
  name: string
  script: string
  description?: string | undefined
  /** Default 2. */
  vcpus?: number | undefined
  /** Default 512. */
  memoryMb?: number | undefined
  environment?: Readonly<Record<string, string>> | undefined
  /** `/workspace` is kept from run to run; runs on one workspace wait for each other. */
  stateful?: boolean | undefined
  /** Default: the id of the job. Needs `stateful`. */
  workspaceId?: string | undefined
  /** Default 10. */
  workspaceSizeGb?: number | undefined
  /** Keep the sandbox after the script. */
  persist?: boolean | undefined
  /** An address of its own. */
  ipLease?: boolean | undefined
  /** Port that its URL reaches; default 8080. */
  proxyPort?: number | undefined
  image?: string | undefined
  isolation?: 'auto' | 'vm' | 'container' | undefined
  /** Seconds. */
  timeout?: number | undefined
  /** Tries after a failed one. */
  maxRetries?: number | undefined
  /** Before the first of them; twice as long before each further one. */
  retryBackoffSeconds?: number | undefined
  /** Higher ones start first. */
  priority?: number | undefined
  /** What it may reach; default: what the server allows. */
  egress?: RunOptions['egress']
}

export interface CreateJobOptions extends JobFields, CallOptions {
  idempotencyKey?: string | undefined
}

/** What changes; null: the default again. */
export type UpdateJobOptions = {
  [Name in 'name' | 'script']?: JobFields[Name] | undefined
} & {
  [Name in Exclude<keyof JobFields, 'name' | 'script'>]?: JobFields[Name] | null | undefined
} & CallOptions

export interface RunJobOptions extends CallOptions {
  /** Over what the job has. */
  environment?: Readonly<Record<string, string>> | undefined
}

/** Jobs of the Jobs API: defined once, run any number of times. Ids are those of jobs, whose newest run is meant, or of runs; a name or workspace means what is not over, else the newest. */
export class JobsClient {
  readonly #requester: Requester

  constructor(requester: Requester) {
    this.#requester = requester
  }

  /** Defines a job and begins its first run. */
  async create(options: CreateJobOptions): Promise<Answer<JobCreatedWire>> {
    const { signal, idempotencyKey = crypto.randomUUID(), ...fields } = options
    const headers = { 'idempotency-key': idempotencyKey }
    return await this.#requester.json<JobCreatedWire>({
      method: 'POST',
      path: '/jobs',
      body: { type: 'inline', ...toWire(fields) },
      headers,
      repeatable: true,
      signal,
    })
  }

  /** Newest first. */
  async list(options: PageOptions & { templateId?: string | undefined } = {}): Promise<Answer<JobWireList>> {
    const { signal, ...filters } = options
    return await this.#requester.json<JobWireList>({ method: 'GET', path: '/jobs', query: toWire(filters) as Record<string, string | number>, signal })
  }

  async get(id: string, options: CallOptions = {}): Promise<Answer<JobWire>> {
    return await this.#requester.json<JobWire>({ method: 'GET', path: jobPath(id), signal: options.signal })
  }

  async details(id: string, options: CallOptions = {}): Promise<Answer<JobDetailsWire>> {
    return await this.#requester.json<JobDetailsWire>({ method: 'GET', path: jobPath(id, '/details'), signal: options.signal })
  }

  /** For later runs. */
  async update(id: string, options: UpdateJobOptions): Promise<Answer<JobWire>> {
    const { signal, ...fields } = options
    return await this.#requester.json<JobWire>({ method: 'PUT', path: jobPath(id), body: toWire(fields), repeatable: true, signal })
  }

  /** A run that is not over is cancelled. */
  async delete(id: string, options: CallOptions = {}): Promise<Answer<DoneWire>> {
    return await this.#requester.json<DoneWire>({ method: 'DELETE', path: jobPath(id), signal: options.signal })
  }

  /** Runs it once more. */
  async run(id: string, options: RunJobOptions = {}): Promise<Answer<JobRunWire>> {
    const { signal, ...fields } = options
    const headers = { 'idempotency-key': crypto.randomUUID() }
    return await this.#requester.json<JobRunWire>({ method: 'POST', path: jobPath(id, '/run'), body: toWire(fields), headers, repeatable: true, signal })
  }

  /** Newest first. */
  async runs(id: string, options: PageOptions = {}): Promise<Answer<JobRunListWire>> {
    const { signal, ...paging } = options
    return await this.#requester.json<JobRunListWire>({ method: 'GET', path: jobPath(id, '/runs'), query: toWire(paging) as Record<string, number>, signal })
  }

  async status(id: string, options: CallOptions = {}): Promise<Answer<JobStatusWire>> {
    return await this.#requester.json<JobStatusWire>({ method: 'GET', path: jobPath(id, '/status'), signal: options.signal })
  }

  /** One page of the log, oldest first; `next` of the answer goes on as `after`. */
  async logs(id: string, options: LogsOptions = {}): Promise<Answer<JobLogsWire>> {
    const { signal, ...filters } = options
    return await this.#requester.json<JobLogsWire>({
      method: 'GET',
      path: jobPath(id, '/logs'),
      query: toWire(filters) as Record<string, string | number>,
      signal,
    })
  }

  /** Every row, as it comes, and the end of the run; survives lost connections and restarts of the server. */
  followEvents(id: string, options: FollowOptions = {}): AsyncGenerator<JobEvent<JobRunState>> {
    return followEventsOf<JobRunState>(this.#requester, jobPath(id, '/logs'), options)
  }

  /** Idempotent. */
  async cancel(id: string, options: CallOptions = {}): Promise<Answer<CancelJobWire>> {
    return await this.#requester.json<CancelJobWire>({ method: 'POST', path: jobPath(id, '/cancel'), repeatable: true, signal: options.signal })
  }

  async vmInfo(id: string, options: CallOptions = {}): Promise<Answer<VmInfoWire>> {
    return await this.#requester.json<VmInfoWire>({ method: 'GET', path: jobPath(id, '/vm-info'), signal: options.signal })
  }

  /** Runs one command in its sandbox. Not sent twice: it may have run. */
  async ssh(id: string, command: string, options: CallOptions & { timeoutSeconds?: number | undefined } = {}): Promise<Answer<ExecWire>> {
    const { signal, timeoutSeconds = 30 } = options
    const body = { command, timeout_seconds: timeoutSeconds }
    return await this.#requester.json<ExecWire>({ method: 'POST', path: jobPath(id, '/ssh'), body, timeoutMs: timeoutSeconds * 1000 + 30_000, signal })
  }
}

function jobPath(id: string, rest = ''): string {
  if (id === '') throw new TypeError('The id of a job must not be empty.')
  return `/jobs/${encodeURIComponent(id)}${rest}`
}
