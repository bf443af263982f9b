import type { Mags, StatusWire } from '@mags/sdk'
import type { Cli } from '../cli.ts'
import { formatBytes } from '../terminal/format-bytes.ts'

type Saved = Pick<StatusWire, 'workspace_id' | 'workspace_version' | 'workspace_bytes_uploaded' | 'workspace_unsaved_since'>

/** Says what became of the job's workspace: on a terminal when it is saved, always when it is not. */
export async function saySaved(cli: Cli, mags: Mags, id: string): Promise<void> {
  const status = await mags.status(id).catch(() => undefined)
  // A script that ended well in a job that did not: the reason has been said already.
  if (status === undefined || isUnderWay(status) || (status.status === 'error' && status.exit_code === 0)) return
  // Cut off, as by the end of its server: what it had written may be saved in a moment.
  if (status.status === 'error' && status.exit_code === null && status.workspace_unsaved_since == null) return
  const words = describeSaved(status)
  if (status.workspace_unsaved_since != null) await cli.output.note(words)
  else if (words !== '') await cli.output.aside(words)
}

/** Left before its end: what it will have saved is not known. */
function isUnderWay({ status }: Pick<StatusWire, 'status'>): boolean {
  return status === 'pending' || status === 'running' || status === 'sleeping'
}

/** Such as `saved proj@4 (12.3 MB uploaded)`; empty for a job without a workspace of its own. */
export function describeSaved(status: Saved): string {
  const { workspace_id: name, workspace_version: version, workspace_bytes_uploaded: uploaded, workspace_unsaved_since: since } = status
  if (name == null) return ''
  if (since != null)
    return `workspace '${name}' is not saved since ${since}; its changes are kept on the server's machine and saved when the object store answers again`
  if (version == null || version === 0) return `nothing to save in '${name}' yet`
  return uploaded == null || uploaded === 0 ? `nothing new since ${name}@${version}` : `saved ${name}@${version} (${formatBytes(uploaded)} uploaded)`
}
