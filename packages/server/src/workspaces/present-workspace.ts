import type { DiffWorkspaceAnswer, WorkspaceAnswer, WorkspaceDiff, WorkspacePathState, WorkspaceVersion, WorkspaceVersionAnswer } from '@mags/protocol'
import type { Workspace } from './workspace.ts'

/** A workspace as the API gives it. */
export function presentWorkspace(workspace: Workspace): WorkspaceAnswer {
  return {
    workspace_id: workspace.workspaceId,
    size_bytes: workspace.sizeBytes,
    version: workspace.version,
    created_at: workspace.createdAt,
    updated_at: workspace.updatedAt,
    synced_at: workspace.syncedAt,
    in_use_by: workspace.holderRequestId,
    base_workspace_id: workspace.baseWorkspaceId,
    scope: workspace.scope,
    image: workspace.image,
    disk_gb: workspace.diskGb,
    unsaved_since: workspace.unsavedSince,
    save_error: workspace.saveError,
  }
}

export function presentVersion(version: WorkspaceVersion): WorkspaceVersionAnswer {
  return {
    version: version.version,
    created_at: version.createdAt,
    reason: version.reason,
    size_bytes: version.sizeBytes,
    entry_count: version.entryCount,
    uploaded_bytes: version.uploadedBytes,
    image: version.image.name,
  }
}

export function presentDiff(workspaceId: string, from: number, to: number, diff: WorkspaceDiff): DiffWorkspaceAnswer {
  const differences = diff.differences.map(({ path, change, before, after, content }) => ({
    path,
    change,
    before: presentState(before),
    after: presentState(after),
    ...(content === undefined ? {} : { content }),
  }))
  return { workspace_id: workspaceId, from, to, differences, truncated: diff.truncated }
}

const presentState = (state: WorkspacePathState | undefined) =>
  state === undefined ? null : { kind: state.kind, size_bytes: state.sizeBytes, mode: state.mode }
