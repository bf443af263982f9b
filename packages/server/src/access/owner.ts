import type { Job } from '../jobs/job.ts'

/** Whose URL, SSH port and key it is: the workspace's when there is one, so that they stay the same from job to job. */
export const ownerOf = (job: Pick<Job, 'requestId' | 'workspaceStorageId'>): string =>
  job.workspaceStorageId === null ? `j:${job.requestId}` : `w:${job.workspaceStorageId}`
