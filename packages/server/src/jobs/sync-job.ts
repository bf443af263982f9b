import { MagsError } from '@mags/protocol'
import type { Job } from './job.ts'
import type { JobRun } from './job-run.ts'

/** The run of a job whose workspace can be saved now; throws MagsError 'bad_request' or 'job_not_running' that says why not. */
export function runForSync(job: Job, run: JobRun | undefined): JobRun {
  if (job.workspaceId === null) throw new MagsError('bad_request', `job ${job.name} has no workspace to save; give it one with workspace_id when you submit it`)
  if (job.status === 'pending') throw new MagsError('job_not_running', `job ${job.name} has not started yet; try again once its status is running`)
  if ((job.status !== 'running' && job.status !== 'sleeping') || run === undefined)
    throw new MagsError(
      'job_not_running',
      `job ${job.name} is over (status: ${job.status}), so there is nothing more of it to save; 'mags workspace get' says what is saved`,
    )
  return run
}
