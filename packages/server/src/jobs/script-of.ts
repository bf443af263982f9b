import type { ScriptSpec } from '@mags/protocol'
import type { Job } from './job.ts'
import { type JobFiles, openJobFiles } from './job-files.ts'
import { startupScript } from './sleep/restart-job.ts'

/** What runs first in the sandbox of a job: its script with its uploaded files, the image's init, or the startup command when it goes on from files of another sandbox. Rejects as `JobFiles.open`. */
export async function scriptOf(job: Job, files: JobFiles | undefined): Promise<ScriptSpec> {
  const { script, environment } = job
  if (job.init) return { script, environment, init: true }
  if (job.restarted) return startupScript(job)
  return job.fileIds.length === 0 ? { script, environment } : { script, environment, files: await openJobFiles(files, job) }
}
