import { type EgressPolicy, type Isolation, type JobStatus, jobStatuses, MagsError, type SleepStage } from '@mags/protocol'
import { sql, type Transaction, type Updateable } from 'kysely'
import { releaseAddresses } from '../ip-leases/store.ts'
import type { Database } from '../state/database.ts'
import type { GroupCommit } from '../state/group-commit.ts'
import type { JobsTable, Tables } from '../state/schema.ts'
import type { HeldWorkspaces } from '../workspaces/hold-workspaces.ts'
import { releaseHold, renewHold } from '../workspaces/store.ts'
import { type Job, type JobHead, type JobTimings, noTimings } from './job.ts'
import { headColumns, timingColumns, toHead, toJob, toRow } from './job-row.ts'

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

/** A sandbox was taken. */
export interface Taken {
  readonly vmId: string
  readonly isolation: Isolation
  /** Whether it was there at once. */
  readonly warm?: boolean
  readonly queueMs: number
  readonly acquireMs: number
  readonly startedAt: string
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

/** What is not over first, and of that what has its workspace, or needs none. */
const rank = sql<number>`case when status not in ('pending', 'running', 'sleeping') then 2 when workspace_scope is not null and workspace_storage_id is null then 1 else 0 end`

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
  markRunning(requestId: string, change: Taken): Promise<boolean> {
    const columns = {
      status: 'running' as const,
      vm_id: change.vmId,
      isolation: change.isolation,
      queue_ms: change.queueMs,
      acquire_ms: change.acquireMs,
      started_at: change.startedAt,
      ...(change.warm === undefined ? {} : { warm: Number(change.warm) }),
    }
    // On the start path: a crash of ours cannot undo it, and a power cut ends the sandbox with it.
    return this.#update(requestId, ['pending'], columns, { flushed: false })
  }

  /** A pending job takes the workspace that it has waited for. Rejects as `hold`, and with MagsError 'job_not_running' when it is not pending any more. */
  setHeld(requestId: string, hold: (transaction: Transaction<Tables>) => Promise<HeldWorkspaces>): Promise<HeldWorkspaces> {
    return this.#commits.write(async (transaction) => {
      const held = await hold(transaction)
      const result = await transaction
        .updateTable('jobs')
        .set({
          disk_gb: held.diskGb,
          image: held.image,
          image_digest: held.imageDigest,
          workspace_storage_id: held.workspaceStorageId,
          workspace_fence: held.workspaceFence,
          base_storage_id: held.baseStorageId,
          workspace_version: held.workspaceVersion,
          workspace_synced_at: held.workspaceSyncedAt,
          workspace_size_bytes: held.workspaceSizeBytes,
        })
        .where('request_id', '=', requestId)
        .where('status', '=', 'pending')
        .executeTakeFirst()
      if (result.numUpdatedRows === 0n) throw new MagsError('job_not_running', 'the job does not wait any more')
      return held
    })
  }

  /**
   * A try failed: pending again, as the next one. A workspace with a scope is free until then, any other stays the job's, with a new fence for the next sandbox; so do leased addresses. False when the job is over.
   */
  retry(requestId: string, notBefore: string): Promise<boolean> {
    const columns = {
      status: 'pending' as const,
      attempt: sql<number>`attempt + 1`,
      not_before: notBefore,
      vm_id: null,
      isolation: null,
      exit_code: null,
      error: null,
      started_at: null,
      sleep_stage: null,
      warm: null,
      ...timingColumns(noTimings),
    }
    return this.#commits.write(async (transaction) => {
      const row = await transaction
        .updateTable('jobs')
        .set(columns)
        .where('request_id', '=', requestId)
        .where('status', 'in', unfinished)
        .returning(['workspace_storage_id', 'workspace_scope'])
        .executeTakeFirst()
      if (row?.workspace_storage_id == null) return row !== undefined
      if (row.workspace_scope === null) {
        await renewHold(transaction, row.workspace_storage_id, requestId)
      } else {
        await releaseHold(transaction, requestId)
        await transaction.updateTable('jobs').set({ workspace_storage_id: null, workspace_fence: null }).where('request_id', '=', requestId).execute()
      }
      return true
    })
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

  /** To a final status, from any of `from`, and its workspace and addresses are free; false when the job was in none of them. */
  finish(requestId: string, outcome: JobOutcome, from: readonly JobStatus[] = unfinished): Promise<boolean> {
    const columns = {
      status: outcome.status,
      exit_code: outcome.exitCode,
      error: outcome.error,
      completed_at: outcome.completedAt,
      sleep_stage: null,
      ...timingColumns(outcome.timings),
      ipv4_address: null,
      ipv6_address: null,
    }
    return this.#commits.write(async (transaction) => {
      const row = await transaction
        .updateTable('jobs')
        .set(columns)
        .where('request_id', '=', requestId)
        .where('status', 'in', from)
        .returning(['workspace_storage_id', 'ip_lease'])
        .executeTakeFirst()
      if (row?.workspace_storage_id != null) await releaseHold(transaction, requestId)
      if (row !== undefined && row.ip_lease !== 0) await releaseAddresses(transaction, requestId, outcome.completedAt)
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

  /**
   * By request id; else by the name of a Mags job or by workspace, else by name or id of a microVM. Of several the newest that is not over, else the newest; what only waits for a workspace comes after what has it.
   */
  async find(accountId: string, id: string): Promise<Job | undefined> {
    const byId = await this.get(id)
    if (byId) return byId.accountId === accountId ? byId : undefined
    const ofAccount = this.#database.selectFrom('jobs').selectAll().where('account_id', '=', accountId).orderBy(rank).orderBy('seq', 'desc').limit(1)
    const row =
      (await ofAccount.where(({ eb, and, or }) => or([and([eb('name', '=', id), eb('kind', '=', 'mags')]), eb('workspace_id', '=', id)])).executeTakeFirst()) ??
      (await ofAccount
        .where('kind', '=', 'microvm')
        .where(({ eb, or }) => or([eb('name', '=', id), eb('definition_id', '=', id)]))
        .executeTakeFirst())
    return row && toJob(row)
  }

  /** The job with this subdomain of its own. */
  async findBySubdomain(subdomain: string): Promise<Job | undefined> {
    const row = await this.#database.selectFrom('jobs').selectAll().where('subdomain', '=', subdomain).executeTakeFirst()
    return row && toJob(row)
  }

  /** The newest job on a workspace that is not over, else the newest; what only waits for it comes after what has it. */
  async findByWorkspace(accountId: string, workspaceId: string): Promise<Job | undefined> {
    const row = await this.#database
      .selectFrom('jobs')
      .selectAll()
      .where('account_id', '=', accountId)
      .where('workspace_id', '=', workspaceId)
      .orderBy(rank)
      .orderBy('seq', 'desc')
      .limit(1)
      .executeTakeFirst()
    return row && toJob(row)
  }

  /** Mags jobs, newest first. */
  async list(accountId: string, options: { offset: number; limit: number; status?: JobStatus | undefined; workspaceId?: string | undefined }) {
    let query = this.#database.selectFrom('jobs').where('account_id', '=', accountId).where('kind', '=', 'mags')
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

  /** The newest run of a definition, or of a microVM. */
  async newestOf(definitionId: string): Promise<Job | undefined> {
    const row = await this.#database.selectFrom('jobs').selectAll().where('definition_id', '=', definitionId).orderBy('seq', 'desc').limit(1).executeTakeFirst()
    return row && toJob(row)
  }

  /** Runs of a definition, newest first. */
  async listOfDefinition(definitionId: string, options: { readonly offset: number; readonly limit: number }): Promise<{ runs: JobHead[]; total: number }> {
    const query = this.#database.selectFrom('jobs').where('definition_id', '=', definitionId)
    const { total } = await query.select(({ fn }) => fn.countAll<number>().as('total')).executeTakeFirstOrThrow()
    const rows = await query.select(headColumns).orderBy('seq', 'desc').offset(options.offset).limit(options.limit).execute()
    return { runs: rows.map(toHead), total }
  }

  /** Runs of a definition that are not over, oldest first. */
  async listUnfinishedOf(definitionId: string): Promise<JobHead[]> {
    const rows = await this.#database
      .selectFrom('jobs')
      .select(headColumns)
      .where('definition_id', '=', definitionId)
      .where('status', 'in', unfinished)
      .orderBy('seq')
      .execute()
    return rows.map(toHead)
  }

  /** The jobs that are not over, oldest first. */
  async listUnfinished(): Promise<JobHead[]> {
    const rows = await this.#database
      .selectFrom('jobs')
      .select(headColumns)
      // Written out: a partial index is only used for a condition the planner can read.
      .where(sql<boolean>`status in ('pending', 'running', 'sleeping')`)
      .orderBy('seq')
      .execute()
    return rows.map(toHead)
  }

  #update(requestId: string, from: readonly JobStatus[], columns: Updateable<JobsTable>, options?: { readonly flushed: boolean }): Promise<boolean> {
    if (Object.keys(columns).length === 0) return Promise.resolve(true)
    return this.#commits.write(async (transaction) => {
      const result = await transaction.updateTable('jobs').set(columns).where('request_id', '=', requestId).where('status', 'in', from).executeTakeFirst()
      return result.numUpdatedRows > 0n
    }, options)
  }
}
