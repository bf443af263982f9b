import { randomUUID } from 'node:crypto'
import { timestamp } from '../state/timestamp.ts'
import { type Job, neverSlept, newSubdomain, noTimings, plainJob } from './job.ts'

/** The job of a copy: like its source, but for what names it and what it has done. Its deadline, if the script has one, counts anew. */
export function copyOf(source: Job, { requestId, name, now }: { readonly requestId: string; readonly name: string; readonly now: number }): Job {
  return {
    ...source,
    ...neverSlept,
    ...plainJob,
    // Its files are changes to that version.
    imageDigest: source.imageDigest,
    requestId,
    jobId: randomUUID(),
    name,
    status: 'pending',
    subdomain: newSubdomain(),
    workspaceId: null,
    // What it starts from must stay as long as it does.
    baseWorkspaceId: source.workspaceId ?? source.baseWorkspaceId,
    baseStorageId: source.workspaceStorageId ?? source.baseStorageId,
    isolationWish: wishOf(source),
    isolation: null,
    vmId: null,
    exitCode: null,
    error: null,
    timings: noTimings,
    createdAt: timestamp(now),
    startedAt: null,
    completedAt: null,
    // They are where its script has put them by now.
    fileIds: [],
    workspaceStorageId: null,
    workspaceFence: null,
    workspaceVersion: null,
    workspaceSyncedAt: null,
    workspaceSizeBytes: null,
    workspaceUploadedBytes: null,
    // The same server runs in it.
    urlUsed: source.urlUsed,
    forkedFrom: source.requestId,
  }
}

/** The wall that its source has: what `auto` means may change. */
function wishOf({ isolation, isolationWish }: Job): Job['isolationWish'] {
  if (isolation === null) return isolationWish
  return isolation === 'container' ? 'container' : 'vm'
}
