import { type EgressPolicy, type Isolation, type JobStatus, jobStatuses, type SleepStage } from '@mags/protocol'
import { sql, type Transaction, type Updateable } from 'kysely'
import type { Database } from '../state/database.ts'
import type { GroupCommit } from '../state/group-commit.ts'
import type { JobsTable, Tables } from '../state/schema.ts'
import { releaseHold } from '../workspaces/store.ts'
import type { Job, JobTimings } from './job.ts'
import { timingColumns, toJob, toRow } from './job-row.ts'

/** What may be changed of a job that is not over. */
export interface JobChange {
  readonly startupCommand?: string | null
  readonly noSleep?: boolean
  readonly port?: number
  readonly egress?: EgressPolicy | null
}

export interface Wake {
  readonly vmId: string
  readonly isolation: Isolation
  readonly wokenAt: string
  readonly reason: string
  readonly durationMs: number
  readonly restarted: boolean
}

export interface JobOutcome {
  readonly status: 'completed' | 'error' | 'stopped'
  readonly exitCode: number | null
  readonly error: string | null
  readonly timings: JobTimings
  readonly completedAt: string
}

const unfinished: readonly JobStatus[] = ['pending', 'running', 'sleeping']
/** What concerns its script may be noted late, when it sleeps already. */
const started: readonly JobStatus[] = ['running', 'sleeping']

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
    return this.#update(requestId, started, timingColumns(timings), { flushed: false })
  }

  /** The script of a persistent job ended. */
  setScriptExit(requestId: string, exitCode: number, timings: JobTimings): Promise<boolean> {
    return this.#update(requestId, started, { exit_code: exitCode, ...timingColumns(timings) })
  }

  /** running → sleeping. */
  markSleeping(requestId: string, sleptAt: string): Promise<boolean> {
    return this.#update(requestId, ['running'], { status: 'sleeping', sleep_stage: 'frozen', slept_at: sleptAt })
  }

  /** Sleeps deeper; `released`: it has no sandbox any more. */
  setSleepStage(requestId: string, stage: SleepStage): Promise<boolean> {
    return this.#update(requestId, ['sleeping'], { sleep_stage: stage, ...(stage === 'released' ? { vm_id: null } : {}) })
  }

  /** sleeping → running. */
  markAwake(requestId: string, wake: Wake): Promise<boolean> {
    const columns: Updateable<JobsTable> = {
      status: 'running',
      sleep_stage: null,
      vm_id: wake.vmId,
      isolation: wake.isolation,
      woken_at: wake.wokenAt,
      wake_reason: wake.reason,
      wake_ms: wake.durationMs,
      ...(wake.restarted ? { restarted: 1 } : {}),
    }
    // Somebody waits for it, and the sandbox is gone with the machine.
    return this.#update(requestId, ['sleeping'], columns, { flushed: false })
  }

  /** A copy runs. */
  setForked(requestId: string, change: { readonly withMemory: boolean; readonly restarted: boolean }): Promise<boolean> {
    return this.#update(requestId, started, { forked_with_memory: Number(change.withMemory), restarted: Number(change.restarted) })
  }

  /** Nothing is left of a copy that never ran, its new workspace is one to take away, and its Idempotency-Key can be used again. False when it ran, or is over. */
  discardCopy(requestId: string, now: string): Promise<boolean> {
    return this.#commits.write(async (transaction) => {
      const row = await transaction
        .deleteFrom('jobs')
        .where('request_id', '=', requestId)
        .where('status', 'in', ['pending', 'running'])
        .where('forked_from', 'is not', null)
        .where('forked_with_memory', 'is', null)
        .returning(['account_id', 'workspace_storage_id'])
        .executeTakeFirst()
      if (row === undefined) return false
      const storageId = row.workspace_storage_id
      if (storageId !== null)
        await transaction.updateTable('workspaces').set({ holder_request_id: null, removed_at: now }).where('storage_id', '=', storageId).execute()
      const owner = storageId === null ? `j:${requestId}` : `w:${storageId}`
      await transaction.deleteFrom('access').where('owner', '=', owner).execute()
      await transaction
        .deleteFrom('idempotency_keys')
        .where('account_id', '=', row.account_id)
        .where('answer', 'like', `%"request_id":"${requestId}"%`)
        .execute()
      return true
    })
  }

  /** Its URL was opened, or has had a request. */
  markUrlUsed(requestId: string): Promise<boolean> {
    return this.#update(requestId, unfinished, { url_used: 1 }, { flushed: false })
  }

  /** Also of one that is over: the last byte is counted when its sandbox is gone. */
  setEgressBytes(requestId: string, bytes: number): Promise<boolean> {
    return this.#update(requestId, jobStatuses, { egress_bytes: bytes }, { flushed: false })
  }

  /** To a final status, from any of `from`, and its workspace is free; false when the job was in none of them. */
  finish(requestId: string, outcome: JobOutcome, from: readonly JobStatus[] = unfinished): Promise<boolean> {
    const columns = {
      status: outcome.status,
      exit_code: outcome.exitCode,
      error: outcome.error,
      completed_at: outcome.completedAt,
      sleep_stage: null,
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

  /** False when the job is over. */
  update(requestId: string, change: JobChange): Promise<boolean> {
    const columns: Updateable<JobsTable> = {}
    if (change.startupCommand !== undefined) columns.startup_command = change.startupCommand
    if (change.noSleep !== undefined) columns.no_sleep = Number(change.noSleep)
    if (change.port !== undefined) columns.port = change.port
    if (change.egress !== undefined) columns.egress = change.egress === null ? null : JSON.stringify(change.egress)
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

  /** The job with this subdomain of its own. */
  async findBySubdomain(subdomain: string): Promise<Job | undefined> {
    const row = await this.#database.selectFrom('jobs').selectAll().where('subdomain', '=', subdomain).executeTakeFirst()
    return row && toJob(row)
  }

  /** The newest job on a workspace that is not over, else the newest. */
  async findByWorkspace(accountId: string, workspaceId: string): Promise<Job | undefined> {
    const row = await this.#database
      .selectFrom('jobs')
      .selectAll()
      .where('account_id', '=', accountId)
      .where('workspace_id', '=', workspaceId)
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
