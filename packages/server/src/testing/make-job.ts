import type { Job } from '../jobs/job.ts'
import { type JobDraft, newJob } from '../jobs/new-job.ts'

/** A job that waits, for tests of the stores. */
export function makeJob(change: Partial<Job> = {}): Job {
  const draft: JobDraft = {
    accountId: 'local',
    name: 'n',
    script: 'echo "é" \'x\'',
    environment: { A: 'b' },
    timeoutSeconds: 300,
    image: 'debian-12',
    ...change,
  }
  return newJob(draft, Date.now())
}
