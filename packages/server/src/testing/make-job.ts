import { type Job, neverSlept, newRequestId, newSubdomain, noTimings } from '../jobs/job.ts'
import { timestamp } from '../state/timestamp.ts'

/** A job that waits, for tests of the stores. */
export function makeJob(change: Partial<Job> = {}): Job {
  const requestId = newRequestId()
  return {
    requestId,
    jobId: newRequestId(),
    accountId: 'local',
    name: 'n',
    status: 'pending',
    persistent: false,
    script: 'echo "é" \'x\'',
    environment: { A: 'b' },
    startupCommand: null,
    noSleep: false,
    timeoutSeconds: 300,
    image: 'debian-12',
    isolationWish: 'auto',
    isolation: null,
    vcpus: 1,
    memoryMb: 512,
    diskGb: 2,
    port: 8080,
    subdomain: newSubdomain(),
    workspaceId: null,
    vmId: null,
    exitCode: null,
    error: null,
    timings: noTimings,
    createdAt: timestamp(Date.now()),
    startedAt: null,
    completedAt: null,
    baseWorkspaceId: null,
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
    ...change,
  }
}
