import type { Job } from './job.ts'

/** The steps of the start of a job for a Server-Timing header, in milliseconds; says so when no warm sandbox was there. */
export const startSteps = ({ timings, warm }: Pick<Job, 'timings' | 'warm'>) => ({
  queue: timings.queueMs,
  [warm === false ? 'acquire;desc="no warm sandbox"' : 'acquire']: timings.acquireMs,
  attach: timings.attachMs,
  'first-byte': timings.firstByteMs,
})
