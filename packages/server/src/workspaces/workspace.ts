import { randomBytes } from 'node:crypto'

/**
 * A workspace as the database has it.
 *
 *     free ──submit──► held by a job ──the job is over──► free ──delete──► removed ──its data are gone──► (no row)
 *
 * `unsavedSince` is set in any of them while changes could not be saved.
 */
export interface Workspace {
  readonly accountId: string
  readonly workspaceId: string
  /** Its name on the host and in the object store: never used a second time. */
  readonly storageId: string
  /** Grows with every holder. */
  readonly fence: number
  readonly image: string
  readonly imageDigest: string
  readonly diskGb: number
  readonly sizeBytes: number
  /** The newest; 0 until it was saved for the first time. */
  readonly version: number
  readonly baseWorkspaceId: string | null
  /** Only what lies below this folder is kept, for stateful jobs; the whole file system when null. */
  readonly scope: string | null
  readonly createdAt: string
  readonly updatedAt: string
  readonly syncedAt: string | null
  readonly unsavedSince: string | null
  readonly saveError: string | null
  /** The job that holds it. */
  readonly holderRequestId: string | null
}

export const newStorageId = (): string => randomBytes(16).toString('hex')
