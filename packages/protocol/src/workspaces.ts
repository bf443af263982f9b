import { z } from 'zod'
import { choice, integer, label, queryFlag, queryInteger } from './fields.ts'

/** Wire shapes of the workspaces API (snake_case). */

export const workspaceAnswer = z
  .object({
    workspace_id: z.string(),
    size_bytes: z.number().describe('All files of the newest version; what the image has is not counted.'),
    version: z.number().describe('The newest; 0 until it was saved for the first time.'),
    created_at: z.string(),
    updated_at: z.string().describe('Newest version, or the last change of its settings.'),
    synced_at: z.string().nullable().describe('When all changes were last known to be in the object store.'),
    in_use_by: z.string().nullable().describe('Request id of the job that holds it.'),
    base_workspace_id: z.string().nullable().describe('What it was made from.'),
    scope: z.string().nullable().describe('Only what lies below this folder is kept, for stateful jobs; null: the whole file system.'),
    image: z.string().describe('Jobs on it need this image.'),
    disk_gb: z.number(),
    unsaved_since: z.string().nullable().describe('When saving it began to fail; null while all is well. The changes are kept on the machine meanwhile.'),
    save_error: z.string().nullable().describe('Why the last attempt failed.'),
  })
  .meta({ title: 'Workspace' })
export type WorkspaceAnswer = z.output<typeof workspaceAnswer>

export const workspaceParams = z.object({ id: z.string().describe('The workspace id.') })

const paging = { page: queryInteger(1, 1_000_000).default(1), page_size: queryInteger(1, 100).default(20) }
const paged = { total: z.number(), page: z.number(), page_size: z.number() }
const version = () => integer(1, 1_000_000_000)
const queryVersion = () => queryInteger(1, 1_000_000_000)

export const listWorkspacesQuery = z.strictObject(paging)
export const listWorkspacesAnswer = z.object({ workspaces: z.array(workspaceAnswer), ...paged })
export type ListWorkspacesAnswer = z.output<typeof listWorkspacesAnswer>

export const updateWorkspaceRequest = z.strictObject({
  disk_gb: integer(1, 1_000_000).describe('A disk can only grow; a job has the new size from its next start.'),
})

export const forkWorkspaceRequest = z.strictObject({
  workspace_id: label().describe('Name of the new one.'),
  version: version().optional().describe('Default: the newest.'),
})

export const workspaceVersionAnswer = z.object({
  version: z.number(),
  created_at: z.string(),
  reason: choice(['sync', 'fork', 'restore']),
  size_bytes: z.number(),
  entry_count: z.number().describe('Paths.'),
  uploaded_bytes: z.number().describe('What went to the object store for it.'),
  image: z.string(),
})
export type WorkspaceVersionAnswer = z.output<typeof workspaceVersionAnswer>

export const listVersionsQuery = z.strictObject(paging)
export const listVersionsAnswer = z.object({ versions: z.array(workspaceVersionAnswer), ...paged })
export type ListVersionsAnswer = z.output<typeof listVersionsAnswer>

export const restoreWorkspaceRequest = z.strictObject({ version: version() })
export const restoreWorkspaceAnswer = z.object({
  success: z.boolean(),
  workspace_id: z.string(),
  version: z.number().describe('The new version, with the contents of the one asked for.'),
})
export type RestoreWorkspaceAnswer = z.output<typeof restoreWorkspaceAnswer>

export const diffWorkspaceQuery = z.strictObject({
  from: queryInteger(0, 1_000_000_000).optional().describe('Default: the version before `to`; 0 is the image.'),
  to: queryVersion().optional().describe('Default: the newest.'),
  content: queryFlag().default(false).describe('Changed lines of text files up to 1 MiB.'),
  limit: queryInteger(1, 100_000).default(1000),
})

const pathState = z.object({ kind: choice(['directory', 'file', 'symlink', 'fifo', 'socket', 'removed']), size_bytes: z.number(), mode: z.number() })

export const diffWorkspaceAnswer = z.object({
  workspace_id: z.string(),
  from: z.number(),
  to: z.number(),
  differences: z.array(
    z.object({
      path: z.string(),
      change: choice(['added', 'changed', 'removed']),
      before: pathState.nullable(),
      after: pathState.nullable(),
      content: z.string().optional(),
    }),
  ),
  truncated: z.boolean().describe('There are more than `limit`.'),
})
export type DiffWorkspaceAnswer = z.output<typeof diffWorkspaceAnswer>

/** POST /mags-jobs/:id/sync. */
export const syncJobAnswer = z.object({
  success: z.boolean(),
  workspace_id: z.string(),
  version: z.number(),
  bytes_uploaded: z.number().describe('0 when nothing had changed.'),
})
export type SyncJobAnswer = z.output<typeof syncJobAnswer>
