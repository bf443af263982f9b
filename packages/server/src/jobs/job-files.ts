import { MagsError, type ScriptFile } from '@mags/protocol'
import type { Job } from './job.ts'

/** Uploaded files as jobs use them. */
export interface JobFiles {
  /** Rejects with MagsError('not_found') naming the first id that is not a file of this account. */
  check(accountId: string, fileIds: readonly string[]): Promise<void>
  /** What goes into the sandbox before the script starts. Rejects with MagsError('not_found') for a file that is gone since. */
  open(accountId: string, fileIds: readonly string[]): readonly ScriptFile[] | Promise<readonly ScriptFile[]>
}

/** The files of a job. Rejects as `JobFiles.open`, and with MagsError('not_available') on a server without files. */
export async function openJobFiles(files: JobFiles | undefined, job: Job): Promise<readonly ScriptFile[]> {
  if (files === undefined) throw new MagsError('not_available', 'this server does not do uploaded files')
  return await files.open(job.accountId, job.fileIds)
}
