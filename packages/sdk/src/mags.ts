import { type AccessOptions, enableAccess, type ForkJobOptions, forkJob, type SleepOptions, sleepJob, wakeJob } from './access/access.ts'
import { createUrlAlias, deleteUrlAlias, listUrlAliases, type UrlAliasOptions } from './aliases/url-aliases.ts'
import { resolveConfig } from './config/resolve-config.ts'
import { type CronChanges, type CronOptions, createCron, deleteCron, fetchCron, listCronRuns, listCrons, runCron, updateCron } from './cron/crons.ts'
import {
  type CopyOptions,
  copyIn,
  copyOut,
  deleteFile,
  type ListFilesOptions,
  listFiles,
  type ReadOptions,
  readArchive,
  readFile,
  streamFile,
  type WriteOptions,
  writeArchive,
  writeFile,
} from './files/sandbox-files.ts'
import {
  deleteUploadedFile,
  fetchUploadedFile,
  listUploadedFiles,
  type UploadManyOptions,
  type UploadOptions,
  type UploadSource,
  uploadFile,
  uploadFiles,
} from './files/uploads.ts'
import { fetchHealth, fetchPoolStatus } from './host/pool.ts'
import type { Bytes } from './http/content.ts'
import { Requester, type RetryListener } from './http/requester.ts'
import { fetchTransport, type Transport } from './http/transport.ts'
import { ImagesClient } from './images/images-client.ts'
import { type ExecEvent, type ExecOptions, execCommand, execStream } from './jobs/exec.ts'
import { type FollowedRow, type FollowOptions, followEvents, followLogs, type JobEvent } from './jobs/follow-events.ts'
import { fetchLogs, type LogsOptions } from './jobs/logs.ts'
import { type NewOptions, newJob, type RunOptions, type RunResult, runAndWait, submitJob } from './jobs/run.ts'
import { type CallOptions, fetchStatus, findJob, type ListOptions, listJobs, type PageOptions, stopJob, type UpdateOptions, updateJob } from './jobs/status.ts'
import { JobsClient } from './jobs-api/jobs-client.ts'
import { MicrovmsClient } from './jobs-api/microvms-client.ts'
import { TemplatesClient } from './jobs-api/templates-client.ts'
import type {
  CronListWire,
  CronRunListWire,
  CronRunWire,
  CronWire,
  DoneWire,
  ExecWire,
  ForkJobWire,
  HealthWire,
  JobListWire,
  LogsWire,
  PoolStatusWire,
  RestoreWorkspaceWire,
  SandboxFileListWire,
  SleepWire,
  SshAccessWire,
  StatusWire,
  SubmitWire,
  SyncWire,
  UploadedFileListWire,
  UploadedFileStatusWire,
  UploadedFileWire,
  UrlAccessWire,
  UrlAliasListWire,
  UrlAliasWire,
  WakeWire,
  WorkspaceDiffWire,
  WorkspaceListWire,
  WorkspaceVersionListWire,
  WorkspaceWire,
} from './wire/answers.ts'
import type { Answer } from './wire/names.ts'
import {
  type DiffOptions,
  deleteWorkspace,
  diffWorkspace,
  type ForkOptions,
  fetchWorkspace,
  fetchWorkspaceVersions,
  forkWorkspace,
  listWorkspaces,
  resizeWorkspace,
  restoreWorkspace,
  syncJob,
} from './workspaces/workspaces.ts'

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
  /** Told before each pause in which a request waits to be sent again. */
  onRetry?: RetryListener | undefined
  /** How requests go out; default: the platform's fetch. */
  transport?: Transport | undefined
}

/**
 * A client of one Mags server. Jobs are named by request id or by name. All methods throw MagsApiError for an answer that is an error
 * and MagsConnectionError when there is none; answers carry every member as the API names it and in camelCase.
 */
export class Mags {
  readonly apiUrl: string
  /** Jobs that are defined once and run any number of times. */
  readonly jobs: JobsClient
  /** Templates of such jobs. */
  readonly templates: TemplatesClient
  /** Long-lived machines with a disk of their own. */
  readonly microvms: MicrovmsClient
  /** What sandboxes begin with. */
  readonly images: ImagesClient
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
      onRetry: options.onRetry,
      transport: options.transport ?? fetchTransport,
    })
    this.jobs = new JobsClient(this.#requester)
    this.templates = new TemplatesClient(this.#requester)
    this.microvms = new MicrovmsClient(this.#requester)
    this.images = new ImagesClient(this.#requester)
  }

  /** Submits a script; resolves when the server has it on record. */
  async run(script: string, options?: RunOptions): Promise<Answer<SubmitWire>> {
    return await submitJob(this.#requester, script, options)
  }

  /** Submits a script and waits for its end; `stdout`, `stderr` and `logs` are in the result. A non-zero exit is a result. */
  async runAndWait(script: string, options?: RunOptions): Promise<RunResult> {
    return await runAndWait(this.#requester, script, options)
  }

  /** A persistent sandbox on the workspace `name`, for `exec` and the like; the job has that name too. */
  async new(name: string, options?: NewOptions): Promise<Answer<SubmitWire>> {
    return await newJob(this.#requester, name, options)
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

  /** How to reach a port of a persistent job: 22 by SSH, every other by its URL, which then leads there. A sleeping job is woken. */
  enableAccess(id: string, port: 22, options?: AccessOptions): Promise<Answer<SshAccessWire>>
  enableAccess(id: string, port: number, options?: AccessOptions): Promise<Answer<UrlAccessWire>>
  async enableAccess(id: string, port: number, options?: AccessOptions): Promise<Answer<SshAccessWire> | Answer<UrlAccessWire>> {
    return await enableAccess(this.#requester, id, port, options)
  }

  /** The URL of a persistent job, which leads to this port from now on. */
  async url(id: string, port = 8080, options?: AccessOptions): Promise<string> {
    return (await enableAccess(this.#requester, id, port, options)).url
  }

  /** Host, port and private key for an SSH client. */
  async ssh(id: string, options?: CallOptions): Promise<Answer<SshAccessWire>> {
    return await enableAccess(this.#requester, id, 22, options)
  }

  /** Puts a persistent job to sleep now; its workspace is saved first. */
  async sleep(id: string, options?: SleepOptions): Promise<Answer<SleepWire>> {
    return await sleepJob(this.#requester, id, options)
  }

  async wake(id: string, options?: CallOptions): Promise<Answer<WakeWire>> {
    return await wakeJob(this.#requester, id, options)
  }

  /** Another persistent job as this one is now. */
  async fork(id: string, options?: ForkJobOptions): Promise<Answer<ForkJobWire>> {
    return await forkJob(this.#requester, id, options)
  }

  /** Saves the workspace of a running job now; resolves when it is durable. Jobs are also saved by themselves, at the end at the latest. */
  async sync(id: string, options?: CallOptions): Promise<Answer<SyncWire>> {
    return await syncJob(this.#requester, id, options)
  }

  /** Uploads a file, by its path or as content; `fileIds: [fileId]` of a submit puts it into `/root`. At most 100 MB. */
  async uploadFile(source: UploadSource, options?: UploadOptions): Promise<Answer<UploadedFileWire>> {
    return await uploadFile(this.#requester, source, options)
  }

  /** Uploads several, all or none. */
  async uploadFiles(sources: readonly UploadSource[], options?: UploadManyOptions): Promise<Answer<UploadedFileWire>[]> {
    return await uploadFiles(this.#requester, sources, options)
  }

  async listUploadedFiles(options?: PageOptions): Promise<Answer<UploadedFileListWire>> {
    return await listUploadedFiles(this.#requester, options)
  }

  async getUploadedFile(fileId: string, options?: CallOptions): Promise<Answer<UploadedFileStatusWire>> {
    return await fetchUploadedFile(this.#requester, fileId, options)
  }

  async deleteUploadedFile(fileId: string, options?: CallOptions): Promise<void> {
    await deleteUploadedFile(this.#requester, fileId, options)
  }

  /** A file of a sandbox, whole, in memory. */
  async readFile(id: string, path: string, options?: ReadOptions): Promise<Buffer> {
    return await readFile(this.#requester, id, path, options)
  }

  /** The same as it comes. */
  streamFile(id: string, path: string, options?: ReadOptions): AsyncGenerator<Uint8Array> {
    return streamFile(this.#requester, id, path, options)
  }

  /** Writes a file of a sandbox; folders above it are made, and what was there stays until all has arrived. */
  async writeFile(id: string, path: string, content: Bytes, options?: WriteOptions): Promise<void> {
    await writeFile(this.#requester, id, path, content, options)
  }

  /** A file of this machine into a sandbox, read as it goes out. */
  async copyIn(id: string, localPath: string, path: string, options?: CopyOptions & WriteOptions): Promise<void> {
    await copyIn(this.#requester, id, localPath, path, options)
  }

  /** A file of a sandbox to this machine, written as it comes. */
  async copyOut(id: string, path: string, localPath: string, options?: CopyOptions): Promise<void> {
    await copyOut(this.#requester, id, path, localPath, options)
  }

  async listFiles(id: string, path: string, options?: ListFilesOptions): Promise<Answer<SandboxFileListWire>> {
    return await listFiles(this.#requester, id, path, options)
  }

  async deleteFile(id: string, path: string, options?: CallOptions & { recursive?: boolean | undefined }): Promise<void> {
    await deleteFile(this.#requester, id, path, options)
  }

  /** A folder of a sandbox as a tar archive, whose names are the sandbox's: judge them before unpacking. */
  readArchive(id: string, path: string, options?: CallOptions): AsyncGenerator<Uint8Array> {
    return readArchive(this.#requester, id, path, options)
  }

  /** Unpacks a tar archive in a folder of a sandbox. */
  async writeArchive(id: string, path: string, tar: Bytes, options?: CallOptions): Promise<void> {
    await writeArchive(this.#requester, id, path, tar, options)
  }

  async listWorkspaces(options?: PageOptions): Promise<Answer<WorkspaceListWire>> {
    return await listWorkspaces(this.#requester, options)
  }

  async getWorkspace(id: string, options?: CallOptions): Promise<Answer<WorkspaceWire>> {
    return await fetchWorkspace(this.#requester, id, options)
  }

  /** With all its versions. Refused while a job has it. */
  async deleteWorkspace(id: string, options?: CallOptions): Promise<Answer<DoneWire>> {
    return await deleteWorkspace(this.#requester, id, options)
  }

  /** The workspace `newId` begins as `id` (or its `version`) is; nothing is copied. */
  async forkWorkspace(id: string, newId: string, options?: ForkOptions): Promise<Answer<WorkspaceWire>> {
    return await forkWorkspace(this.#requester, id, newId, options)
  }

  /** Newest first. */
  async workspaceVersions(id: string, options?: PageOptions): Promise<Answer<WorkspaceVersionListWire>> {
    return await fetchWorkspaceVersions(this.#requester, id, options)
  }

  /** A new version with the contents of an earlier one. */
  async restoreWorkspace(id: string, version: number, options?: CallOptions): Promise<Answer<RestoreWorkspaceWire>> {
    return await restoreWorkspace(this.#requester, id, version, options)
  }

  async diffWorkspace(id: string, options?: DiffOptions): Promise<Answer<WorkspaceDiffWire>> {
    return await diffWorkspace(this.#requester, id, options)
  }

  /** A disk can only grow; jobs have the new size from their next start. */
  async resizeWorkspace(id: string, diskGb: number, options?: CallOptions): Promise<Answer<WorkspaceWire>> {
    return await resizeWorkspace(this.#requester, id, diskGb, options)
  }

  /** `<subdomain>.<apps domain>` leads to whatever job has the workspace. */
  async urlAliasCreate(subdomain: string, workspaceId: string, options?: UrlAliasOptions): Promise<Answer<UrlAliasWire>> {
    return await createUrlAlias(this.#requester, subdomain, workspaceId, options)
  }

  /** Newest first. */
  async urlAliasList(options?: PageOptions): Promise<Answer<UrlAliasListWire>> {
    return await listUrlAliases(this.#requester, options)
  }

  async urlAliasDelete(subdomain: string, options?: CallOptions): Promise<Answer<DoneWire>> {
    return await deleteUrlAlias(this.#requester, subdomain, options)
  }

  /** A script that runs at set times, each run a job of its own. */
  async cronCreate(options: CronOptions): Promise<Answer<CronWire>> {
    return await createCron(this.#requester, options)
  }

  /** Newest first. */
  async cronList(options?: PageOptions): Promise<Answer<CronListWire>> {
    return await listCrons(this.#requester, options)
  }

  /** By id or name. */
  async cronGet(id: string, options?: CallOptions): Promise<Answer<CronWire>> {
    return await fetchCron(this.#requester, id, options)
  }

  /** Changes what is named; null goes back to the default. */
  async cronUpdate(id: string, changes: CronChanges): Promise<Answer<CronWire>> {
    return await updateCron(this.#requester, id, changes)
  }

  /** With its history; jobs that it started go on. */
  async cronDelete(id: string, options?: CallOptions): Promise<Answer<DoneWire>> {
    return await deleteCron(this.#requester, id, options)
  }

  /** Runs it now, also while it is disabled. The answer tells when it was skipped, waits, or could not start. */
  async cronRun(id: string, options?: CallOptions): Promise<Answer<CronRunWire>> {
    return await runCron(this.#requester, id, options)
  }

  /** What became of its last hundred runs, newest first. */
  async cronRuns(id: string, options?: PageOptions): Promise<Answer<CronRunListWire>> {
    return await listCronRuns(this.#requester, id, options)
  }

  async poolStatus(options?: CallOptions): Promise<Answer<PoolStatusWire>> {
    return await fetchPoolStatus(this.#requester, options)
  }

  /** Works without a token. */
  async health(options?: CallOptions): Promise<Answer<HealthWire>> {
    return await fetchHealth(this.#requester, options)
  }
}
