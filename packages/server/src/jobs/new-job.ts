import { randomUUID } from 'node:crypto'
import { timestamp } from '../state/timestamp.ts'
import { defaultDiskGb } from '../workspaces/hold-workspaces.ts'
import { type Job, neverSlept, newRequestId, newSubdomain, noTimings, plainJob } from './job.ts'

/** What a job cannot do without. */
export type JobDraft = Pick<Job, 'accountId' | 'script' | 'image'> & Partial<Job>

/** A job that was not stored yet; what `draft` does not say is as in a plain submit. `now`: ms since 1970. */
export function newJob(draft: JobDraft, now: number): Job {
  return {
    requestId: newRequestId(),
    jobId: randomUUID(),
    name: `mags-job-${Math.floor(now / 1000)}`,
    status: 'pending',
    persistent: false,
    environment: {},
    startupCommand: null,
    noSleep: false,
    timeoutSeconds: null,
    isolationWish: 'auto',
    isolation: null,
    vcpus: 1,
    memoryMb: 512,
    diskGb: defaultDiskGb,
    port: 8080,
    subdomain: newSubdomain(),
    workspaceId: null,
    baseWorkspaceId: null,
    vmId: null,
    exitCode: null,
    error: null,
    timings: noTimings,
    createdAt: timestamp(now),
    startedAt: null,
    completedAt: null,
    fileIds: [],
    workspaceStorageId: null,
    workspaceFence: null,
    baseStorageId: null,
    workspaceVersion: null,
    workspaceSyncedAt: null,
    workspaceSizeBytes: null,
    workspaceUploadedBytes: null,
    egress: null,
    ...neverSlept,
    ...plainJob,
    ...draft,
  }
}
