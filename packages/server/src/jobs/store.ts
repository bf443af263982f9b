import type { Isolation, JobStatus } from '@mags/protocol'
import { type Insertable, type Selectable, sql, type Transaction, type Updateable } from 'kysely'
import type { Database } from '../state/database.ts'
import type { GroupCommit } from '../state/group-commit.ts'
import type { JobsTable, Tables } from '../state/schema.ts'
import { releaseHold } from '../workspaces/store.ts'
import type { Job, JobTimings } from './job.ts'

export interface JobOutcome {
  readonly status: 'completed' | 'error' | 'stopped'
  readonly exitCode: number | null
  readonly error: string | null
  readonly timings: JobTimings
  readonly completedAt: string
}

const unfinished: readonly JobStatus[] = ['pending', 'running', 'sleeping']

/** All SQL about jobs. Every change of status names the status it expects, so that of two that race only one happens. */
export class JobStore {
  readonly #database: Database
  readonly #commits: GroupCommit

  constructor(database: Database, commits: GroupCommit) {
    this.#database = database
    this.#commits = commits
  }

  /** Inserts within a transaction of the caller (with its Idempotency-Key). */
  async insert(transaction: Transaction<Tables>, job: Job): Promise<void> {
    await transaction.insertInto('jobs').values(toRow(job)).execute()
  }

  /** pending → running; false when the job is not pending any more. */
  markRunning(requestId: string, change: { vmId: string; isolation: Isolation; queueMs: number; acquireMs: number; startedAt: string }): Promise<boolean> {
    const columns = {
      status: 'running' as const,
      vm_id: change.vmId,
      isolation: change.isolation,
      queue_ms: change.queueMs,
      acquire_ms: change.acquireMs,
      started_at: change.startedAt,
    }
    // On the start path: a crash of ours cannot undo it, and a power cut ends the sandbox with it.
    return this.#update(requestId, ['pending'], columns, { flushed: false })
  }

  /** Breakdown of the start of a job that goes on. */
  setTimings(requestId: string, timings: JobTimings): Promise<boolean> {
    return this.#update(requestId, ['running'], timingColumns(timings), { flushed: false })
  }

  /** The script of a persistent job ended. */
  setScriptExit(requestId: string, exitCode: number, timings: JobTimings): Promise<boolean> {
    return this.#update(requestId, ['running'], { exit_code: exitCode, ...timingColumns(timings) })
  }

  /** To a final status, from any of `from`, and its workspace is free; false when the job was in none of them. */
  finish(requestId: string, outcome: JobOutcome, from: readonly JobStatus[] = unfinished): Promise<boolean> {
    const columns = {
      status: outcome.status,
      exit_code: outcome.exitCode,
      error: outcome.error,
      completed_at: outcome.completedAt,
      ...timingColumns(outcome.timings),
    }
    return this.#commits.write(async (transaction) => {
      const row = await transaction
        .updateTable('jobs')
        .set(columns)
        .where('request_id', '=', requestId)
        .where('status', 'in', from)
        .returning('workspace_storage_id')
        .executeTakeFirst()
      if (row?.workspace_storage_id != null) await releaseHold(transaction, requestId)
      return row !== undefined
    })
  }

  /** startup_command and no_sleep of a job that is not over. */
  update(requestId: string, change: { startupCommand?: string | null; noSleep?: boolean }): Promise<boolean> {
    const columns: Updateable<JobsTable> = {}
    if (change.startupCommand !== undefined) columns.startup_command = change.startupCommand
    if (change.noSleep !== undefined) columns.no_sleep = Number(change.noSleep)
    return this.#update(requestId, unfinished, columns)
  }

  async get(requestId: string): Promise<Job | undefined> {
    const row = await this.#database.selectFrom('jobs').selectAll().where('request_id', '=', requestId).executeTakeFirst()
    return row && toJob(row)
  }

  /** By request id; else by name or workspace, the newest that is not over first, else the newest. */
  async find(accountId: string, id: string): Promise<Job | undefined> {
    const byId = await this.get(id)
    if (byId) return byId.accountId === accountId ? byId : undefined
    const row = await this.#database
      .selectFrom('jobs')
      .selectAll()
      .where('account_id', '=', accountId)
      .where(({ eb, or }) => or([eb('name', '=', id), eb('workspace_id', '=', id)]))
      .orderBy(({ eb }) => eb.case().when('status', 'in', unfinished).then(0).else(1).end())
      .orderBy('seq', 'desc')
      .limit(1)
      .executeTakeFirst()
    return row && toJob(row)
  }

  async list(accountId: string, options: { offset: number; limit: number; status?: JobStatus | undefined; workspaceId?: string | undefined }) {
    let query = this.#database.selectFrom('jobs').where('account_id', '=', accountId)
    if (options.status !== undefined) query = query.where('status', '=', options.status)
    if (options.workspaceId !== undefined) query = query.where('workspace_id', '=', options.workspaceId)
    const { total } = await query.select(({ fn }) => fn.countAll<number>().as('total')).executeTakeFirstOrThrow()
    const jobs = await query
      .select(['request_id', 'job_id', 'name', 'status', 'workspace_id', 'exit_code', 'created_at'])
      .orderBy('seq', 'desc')
      .offset(options.offset)
      .limit(options.limit)
      .execute()
    return { jobs, total }
  }

  /** Request ids of the jobs that are not over, oldest first. */
  async listUnfinished(): Promise<{ requestId: string; status: JobStatus }[]> {
    const rows = await this.#database
      .selectFrom('jobs')
      .select(['request_id', 'status'])
      // Written out: a partial index is only used for a condition the planner can read.
      .where(sql<boolean>`status in ('pending', 'running', 'sleeping')`)
      .orderBy('seq')
      .execute()
    return rows.map((row) => ({ requestId: row.request_id, status: row.status }))
  }

  #update(requestId: string, from: readonly JobStatus[], columns: Updateable<JobsTable>, options?: { readonly flushed: boolean }): Promise<boolean> {
    if (Object.keys(columns).length === 0) return Promise.resolve(true)
    return this.#commits.write(async (transaction) => {
      const result = await transaction.updateTable('jobs').set(columns).where('request_id', '=', requestId).where('status', 'in', from).executeTakeFirst()
      return result.numUpdatedRows > 0n
    }, options)
  }
}

function timingColumns(timings: JobTimings) {
  return {
    queue_ms: timings.queueMs,
    acquire_ms: timings.acquireMs,
    attach_ms: timings.attachMs,
    first_byte_ms: timings.firstByteMs,
    start_ms: timings.startMs,
    script_ms: timings.scriptMs,
  }
}

function toRow(job: Job): Insertable<JobsTable> {
  return {
    request_id: job.requestId,
    job_id: job.jobId,
    account_id: job.accountId,
    name: job.name,
    status: job.status,
    persistent: Number(job.persistent),
    script: job.script,
    environment: JSON.stringify(job.environment),
    startup_command: job.startupCommand,
    no_sleep: Number(job.noSleep),
    timeout_seconds: job.timeoutSeconds,
    image: job.image,
    isolation_wish: job.isolationWish,
    isolation: job.isolation,
    vcpus: job.vcpus,
    memory_mb: job.memoryMb,
    disk_gb: job.diskGb,
    port: job.port,
    subdomain: job.subdomain,
    workspace_id: job.workspaceId,
    base_workspace_id: job.baseWorkspaceId,
    vm_id: job.vmId,
    exit_code: job.exitCode,
    error: job.error,
    created_at: job.createdAt,
    started_at: job.startedAt,
    completed_at: job.completedAt,
    file_ids: JSON.stringify(job.fileIds),
    workspace_storage_id: job.workspaceStorageId,
    workspace_fence: job.workspaceFence,
    base_storage_id: job.baseStorageId,
    workspace_version: job.workspaceVersion,
    workspace_synced_at: job.workspaceSyncedAt,
    workspace_size_bytes: job.workspaceSizeBytes,
    workspace_uploaded_bytes: job.workspaceUploadedBytes,
    ...timingColumns(job.timings),
  }
}

function toJob(row: Selectable<JobsTable>): Job {
  return {
    requestId: row.request_id,
    jobId: row.job_id,
    accountId: row.account_id,
    name: row.name,
    status: row.status,
    persistent: row.persistent !== 0,
    script: row.script,
    environment: JSON.parse(row.environment) as Record<string, string>,
    startupCommand: row.startup_command,
    noSleep: row.no_sleep !== 0,
    timeoutSeconds: row.timeout_seconds,
    image: row.image,
    isolationWish: row.isolation_wish,
    isolation: row.isolation,
    vcpus: row.vcpus,
    memoryMb: row.memory_mb,
    diskGb: row.disk_gb,
    port: row.port,
    subdomain: row.subdomain,
    workspaceId: row.workspace_id,
    baseWorkspaceId: row.base_workspace_id,
    vmId: row.vm_id,
    exitCode: row.exit_code,
    error: row.error,
    timings: {
      queueMs: row.queue_ms,
      acquireMs: row.acquire_ms,
      attachMs: row.attach_ms,
      firstByteMs: row.first_byte_ms,
      startMs: row.start_ms,
      scriptMs: row.script_ms,
    },
    createdAt: row.created_at,
    startedAt: row.started_at,
    completedAt: row.completed_at,
    fileIds: JSON.parse(row.file_ids) as string[],
    workspaceStorageId: row.workspace_storage_id,
    workspaceFence: row.workspace_fence,
    baseStorageId: row.base_storage_id,
    workspaceVersion: row.workspace_version,
    workspaceSyncedAt: row.workspace_synced_at,
    workspaceSizeBytes: row.workspace_size_bytes,
    workspaceUploadedBytes: row.workspace_uploaded_bytes,
  }
}
