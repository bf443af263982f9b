import type { WorkspaceVersionWire, WorkspaceWire } from '@mags/sdk'
import { describe } from '../terminal/describe.ts'
import { formatBytes } from '../terminal/format-bytes.ts'
import { table } from '../terminal/table.ts'

export function workspaceTable(workspaces: readonly WorkspaceWire[]): string {
  const rows = workspaces.map((each) => [each.workspace_id, String(each.version), formatBytes(each.size_bytes), each.in_use_by ?? '-', savedWords(each)])
  return table(['NAME', 'VERSION', 'SIZE', 'IN USE BY', 'SAVED'], rows)
}

export function versionTable(name: string, versions: readonly WorkspaceVersionWire[]): string {
  const rows = versions.map((each) => [
    `${name}@${each.version}`,
    each.reason,
    formatBytes(each.size_bytes),
    String(each.entry_count),
    formatBytes(each.uploaded_bytes),
    each.image,
    each.created_at,
  ])
  return table(['VERSION', 'MADE BY', 'SIZE', 'PATHS', 'UPLOADED', 'IMAGE', 'CREATED'], rows)
}

export function describeWorkspace(workspace: WorkspaceWire): string {
  const rows: [string, string | null][] = [
    ['name', workspace.workspace_id],
    ['version', workspace.version === 0 ? '0 (never saved)' : String(workspace.version)],
    ['size', formatBytes(workspace.size_bytes)],
    ['disk', `${workspace.disk_gb} GB`],
    ['image', workspace.image],
    ['base', workspace.base_workspace_id],
    ['keeps', workspace.scope ?? null],
    ['in use by', workspace.in_use_by],
    ['saved', savedWords(workspace)],
    ['save error', workspace.save_error],
    ['created', workspace.created_at],
    ['updated', workspace.updated_at],
  ]
  return describe(rows)
}

function savedWords({ unsaved_since: unsavedSince, synced_at: syncedAt }: WorkspaceWire): string {
  if (unsavedSince !== null) return `not saved since ${unsavedSince}`
  return syncedAt ?? 'never'
}
