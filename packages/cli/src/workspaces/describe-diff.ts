import type { WorkspaceDifferenceWire, WorkspaceDiffWire, WorkspacePathStateWire } from '@mags/sdk'
import { formatBytes } from '../terminal/format-bytes.ts'
import { printable } from '../terminal/output.ts'
import { table } from '../terminal/table.ts'

/** A row for each path, and under those with lines their lines. */
export function describeDiff({ differences }: Pick<WorkspaceDiffWire, 'differences'>): string {
  const [heading = '', ...rows] = table(['CHANGE', 'KIND', 'MODE', 'SIZE', 'PATH'], differences.map(cellsOf)).split('\n')
  const lines = differences.flatMap((difference, index) => [rows[index] ?? '', ...linesOf(difference)])
  return `${[heading, ...lines].join('\n')}\n`
}

function cellsOf({ path, change, before, after }: WorkspaceDifferenceWire): string[] {
  // A path of the image that the workspace has deleted stands in it as a mark; for people it is a path that is gone.
  const old = before?.kind === 'removed' ? null : before
  const now = after?.kind === 'removed' ? null : after
  const what = after?.kind === 'removed' ? 'removed' : before?.kind === 'removed' && change !== 'removed' ? 'added' : change
  return [what, both(old, now, ({ kind }) => kind), both(old, now, modeOf), both(old, now, sizeOf), shownPath(path)]
}

/** As it is; with a line feed in it quoted, so that it is not taken for another. */
function shownPath(path: string): string {
  return path.includes('\n') ? JSON.stringify(path) : path
}

/** One value where both sides have the same or only one is there; else both. */
function both(before: WorkspacePathStateWire | null, after: WorkspacePathStateWire | null, show: (state: WorkspacePathStateWire) => string): string {
  const values = [before, after].flatMap((state) => (state === null ? [] : [show(state)]))
  return [...new Set(values)].join(' -> ') || '-'
}

function modeOf({ mode }: WorkspacePathStateWire): string {
  return (mode & 0o7777).toString(8).padStart(4, '0')
}

function sizeOf({ kind, size_bytes: sizeBytes }: WorkspacePathStateWire): string {
  return kind === 'file' ? formatBytes(sizeBytes) : '-'
}

function linesOf({ content }: WorkspaceDifferenceWire): string[] {
  // Without a changed line, as of an empty file, the row has said it all; so it has instead of the line of equals signs.
  if (content === undefined || !/^@@ /m.test(content)) return []
  return printable(content).replace(/^=+\n/, '').replace(/\n$/, '').split('\n')
}
