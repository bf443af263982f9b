import type { JobFiles } from '../jobs/job-files.ts'
import type { CronStore } from './store.ts'

/** Counts the uploaded files that crons name as used: unused ones are deleted, and a cron may run less often than that. A file that is gone already is told by the run that needs it. */
export async function keepCronFiles(crons: CronStore, files: JobFiles): Promise<void> {
  for (const { accountId, fileIds } of await crons.filesInUse()) await files.check(accountId, fileIds).catch(() => undefined)
}
