import { randomBytes, randomUUID } from 'node:crypto'
import type { EgressPolicy, Isolation, IsolationWish, JobStatus, LeasedAddresses, SandboxSpec, SleepStage, WorkspaceHold } from '@mags/protocol'

/**
 * A job as the database has it.
 *
 *     pending ──► running ──► completed   exit code 0
 *        │           ├──────► error       other exit code, timeout (124), sandbox lost, server stopped
 *        │           └──────► stopped     a stop
 *        ├──────────────────► error       no sandbox could be made
 *        └──────────────────► stopped     a stop
 *
 *     running ◄──► sleeping ──► error, stopped
 *
 *     pending, running ──► pending (a try that failed, with retries left: `attempt` is one more, `notBefore` says when it is tried again)
 *
 * A persistent job rests in `running` with `exitCode` set once its script has ended, and goes to `sleeping` when nobody uses it; `sleepStage` says how deep. In `released` it has no sandbox (`vmId` is null):
 * it wakes in a new one, made from its workspace, and is `restarted` from then on. `completed`, `error` and `stopped` are final.
 */
export interface Job {
  readonly requestId: string
  /** Whose API it belongs to: `mags` is listed by /mags-jobs, `job` is a run of /jobs, `microvm` is one while it runs. */
  readonly kind: JobKind
  /** The job of the Jobs API that it is a run of, or the microVM. */
  readonly definitionId: string | null
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
  readonly sleepStage: SleepStage | null
  readonly sleptAt: string | null
  readonly wokenAt: string | null
  readonly wakeReason: string | null
  readonly wakeMs: number | null
  /** Its sandbox was made anew from its workspace: what runs in it first is the startup command. */
  readonly restarted: boolean
  /** Its URL was opened, or has had a request: its script is taken for the server behind it. */
  readonly urlUsed: boolean
  readonly egress: EgressPolicy | null
  readonly egressBytes: number | null
  /** Request id of the job whose sandbox its own is a copy of. */
  readonly forkedFrom: string | null
  /** Higher ones of an account start first. */
  readonly priority: number
  /** Tries after a failure, and how many seconds before the first of them; twice as long before each further one. */
  readonly maxRetries: number
  readonly retryBackoffSeconds: number
  /** Which try it is, from 1. */
  readonly attempt: number
  /** A pending one does not start before. */
  readonly notBefore: string | null
  /** Whether a warm sandbox was there for it. */
  readonly warm: boolean | null
  /** Only what lies below this folder of its workspace is kept; jobs on such a workspace wait for each other. */
  readonly workspaceScope: string | null
  /** Boots the image's init in the place of a script. */
  readonly init: boolean
  /** The version of its image; the newest at its start when null. */
  readonly imageDigest: string | null
  readonly ipLease: boolean
  /** Out of the operator's prefixes, from its submit to its end. */
  readonly ipv4Address: string | null
  readonly ipv6Address: string | null
  /** Whether memory and processes were copied, too. Null until the copy runs: one that a server leaves so behind never was a job. */
  readonly forkedWithMemory: boolean | null
}

/** A job without what only its start needs. */
export type JobHead = Omit<Job, 'script'>

/** What a job has before it slept, or was reached from outside, for the first time, and that is no copy. */
export const neverSlept = {
  sleepStage: null,
  sleptAt: null,
  wokenAt: null,
  wakeReason: null,
  wakeMs: null,
  restarted: false,
  urlUsed: false,
  egressBytes: null,
  forkedFrom: null,
  forkedWithMemory: null,
} as const

export type JobKind = 'mags' | 'job' | 'microvm'

/** What a plain submit does not ask for. */
export const plainJob = {
  kind: 'mags',
  definitionId: null,
  priority: 0,
  maxRetries: 0,
  retryBackoffSeconds: 0,
  attempt: 1,
  notBefore: null,
  warm: null,
  workspaceScope: null,
  init: false,
  imageDigest: null,
  ipLease: false,
  ipv4Address: null,
  ipv6Address: null,
} as const satisfies Partial<Job>

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

/** `goesOn`: the job had a sandbox before, and its workspace has what it did there. */
export function sandboxSpecOf(job: Job, goesOn = false): SandboxSpec {
  const { image, vcpus, memoryMb, diskGb, persistent } = job
  return {
    image,
    isolation: job.isolationWish,
    vcpus,
    memoryMb,
    diskGb,
    persistent,
    share: job.accountId,
    ...(job.imageDigest === null ? {} : { imageDigest: job.imageDigest }),
    ...(job.workspaceStorageId === null ? {} : { workspace: workspaceHoldOf(job, job.workspaceStorageId) }),
    // What began as a fork of another workspace goes on from its own.
    ...(job.baseStorageId === null || goesOn ? {} : { base: { storageId: job.baseStorageId } }),
    ...(job.egress === null ? {} : { egress: job.egress }),
    ...(job.ipv4Address === null && job.ipv6Address === null ? {} : { addresses: addressesOf(job) }),
  }
}

const workspaceHoldOf = ({ workspaceFence, workspaceScope }: Job, storageId: string): WorkspaceHold => ({
  storageId,
  fence: workspaceFence ?? 0,
  ...(workspaceScope === null ? {} : { scope: workspaceScope }),
})

const addressesOf = ({ ipv4Address, ipv6Address }: Job): LeasedAddresses => ({
  ...(ipv4Address === null ? {} : { ipv4: ipv4Address }),
  ...(ipv6Address === null ? {} : { ipv6: ipv6Address }),
})

/** What its URL begins with: the workspace's when it has one, so that it stays the same from job to job. */
export const subdomainOf = (job: Pick<Job, 'subdomain' | 'workspaceStorageId'>): string => job.workspaceStorageId?.slice(0, 12) ?? job.subdomain
