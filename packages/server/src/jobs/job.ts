import { randomBytes, randomUUID } from 'node:crypto'
import type { Isolation, IsolationWish, JobStatus, SandboxSpec } from '@mags/protocol'

/**
 * A job as the database has it.
 *
 *     pending ──► running ──► completed   exit code 0
 *        │           ├──────► error       other exit code, timeout (124), sandbox lost, server stopped
 *        │           └──────► stopped     a stop
 *        ├──────────────────► error       no sandbox could be made
 *        └──────────────────► stopped     a stop
 *
 * A persistent job rests in `running` with `exitCode` set once its script has ended. `completed`, `error` and `stopped` are final.
 */
export interface Job {
  readonly requestId: string
  readonly jobId: string
  readonly accountId: string
  readonly name: string
  readonly status: JobStatus
  readonly persistent: boolean
  readonly script: string
  readonly environment: Readonly<Record<string, string>>
  readonly startupCommand: string | null
  readonly noSleep: boolean
  readonly timeoutSeconds: number | null
  readonly image: string
  readonly isolationWish: IsolationWish
  readonly isolation: Isolation | null
  readonly vcpus: number
  readonly memoryMb: number
  readonly diskGb: number
  readonly port: number
  readonly subdomain: string
  readonly workspaceId: string | null
  readonly baseWorkspaceId: string | null
  readonly vmId: string | null
  readonly exitCode: number | null
  readonly error: string | null
  readonly timings: JobTimings
  readonly createdAt: string
  readonly startedAt: string | null
  readonly completedAt: string | null
  readonly fileIds: readonly string[]
  /** What `workspaceId` and `baseWorkspaceId` mean on the host; the fence is what the job holds its workspace with. */
  readonly workspaceStorageId: string | null
  readonly workspaceFence: number | null
  readonly baseStorageId: string | null
  /** Newest version the job began with or saved, and when its workspace was last known to be saved. */
  readonly workspaceVersion: number | null
  readonly workspaceSyncedAt: string | null
  readonly workspaceSizeBytes: number | null
  readonly workspaceUploadedBytes: number | null
}

/** Milliseconds with three decimals. The first four follow each other without a gap; `startMs` is their sum. */
export interface JobTimings {
  readonly queueMs: number | null
  readonly acquireMs: number | null
  readonly attachMs: number | null
  readonly firstByteMs: number | null
  readonly startMs: number | null
  readonly scriptMs: number | null
}

export const noTimings: JobTimings = { queueMs: null, acquireMs: null, attachMs: null, firstByteMs: null, startMs: null, scriptMs: null }

export const newRequestId = (): string => randomUUID()
export const newSubdomain = (): string => randomBytes(6).toString('hex')

export function sandboxSpecOf(job: Job): SandboxSpec {
  const { image, vcpus, memoryMb, diskGb, persistent } = job
  return {
    image,
    isolation: job.isolationWish,
    vcpus,
    memoryMb,
    diskGb,
    persistent,
    ...(job.workspaceStorageId === null ? {} : { workspace: { storageId: job.workspaceStorageId, fence: job.workspaceFence ?? 0 } }),
    ...(job.baseStorageId === null ? {} : { base: { storageId: job.baseStorageId } }),
  }
}
