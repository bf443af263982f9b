import type { ScriptFile } from '@mags/protocol'

/** Uploaded files as jobs use them. */
export interface JobFiles {
  /** Rejects with MagsError('not_found') naming the first id that is not a file of this account. */
  check(accountId: string, fileIds: readonly string[]): Promise<void>
  /** What goes into the sandbox before the script starts. Rejects with MagsError('not_found') for a file that is gone since. */
  open(accountId: string, fileIds: readonly string[]): readonly ScriptFile[] | Promise<readonly ScriptFile[]>
}
