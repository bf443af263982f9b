import type { ServerResponse } from 'node:http'
import type { SeenRequest } from './fake-server.ts'
import { sendJson } from './send-json.ts'

const proj = {
  workspace_id: 'proj',
  size_bytes: 326_000_000,
  version: 5,
  created_at: '2026-01-01T00:00:00.000Z',
  updated_at: '2026-01-02T00:00:00.000Z',
  synced_at: '2026-01-02T00:00:00.000Z',
  in_use_by: null,
  base_workspace_id: null,
  image: 'debian-12',
  disk_gb: 2,
  unsaved_since: null,
  save_error: null,
}
const behind = {
  ...proj,
  workspace_id: 'behind',
  version: 0,
  synced_at: null,
  unsaved_since: '2026-01-03T00:00:00.000Z',
  save_error: 'the store does not answer',
}

const version = {
  version: 5,
  created_at: '2026-01-02T00:00:00.000Z',
  reason: 'sync',
  size_bytes: 326_000_000,
  entry_count: 20_000,
  uploaded_bytes: 3_260_000,
  image: 'debian-12',
}

const file = { kind: 'file', size_bytes: 1200, mode: 0o644 }
const differences = [
  { path: '/root/new', change: 'added', before: null, after: file },
  { path: '/etc/motd', change: 'changed', before: file, after: { ...file, size_bytes: 900, mode: 0o600 }, content: '@@ -1,1 +1,1 @@\n-hello\n+bye\u001b\n' },
  { path: '/usr/bin/perl', change: 'added', before: null, after: { kind: 'removed', size_bytes: 0, mode: 0 } },
  { path: '/root/old', change: 'removed', before: { kind: 'symlink', size_bytes: 4, mode: 0o777 }, after: null },
]

/** Two workspaces that never change: `proj`, and `behind`, which cannot be saved. */
export function answerWorkspaces({ method, path, query, body }: SeenRequest, response: ServerResponse): void {
  const [, , name = '', verb = ''] = path.split('/')
  const page = { total: 2, page: Number(query.get('page') ?? 1), page_size: Number(query.get('page_size') ?? 20) }
  const found = [proj, behind].find((each) => each.workspace_id === name)
  if (name === '') sendJson(response, 200, { workspaces: [proj, behind].slice(0, page.page_size), ...page })
  else if (found === undefined) sendJson(response, 404, { error: `no workspace '${name}'`, code: 'not_found' })
  else if (verb === 'versions') sendJson(response, 200, { versions: [version], ...page, total: 1 })
  else if (verb === 'diff') {
    const same = query.get('from') === '5'
    const answer = { workspace_id: name, from: Number(query.get('from') ?? 4), to: Number(query.get('to') ?? 5) }
    sendJson(response, 200, { ...answer, differences: same ? [] : differences, truncated: query.has('limit') })
  } else if (verb === 'fork') sendJson(response, 201, { ...found, workspace_id: body.workspace_id })
  else if (verb === 'restore') sendJson(response, 200, { success: true, workspace_id: name, version: 6 })
  else if (method === 'PATCH') sendJson(response, 200, { ...found, disk_gb: body.disk_gb })
  else if (method === 'DELETE') sendJson(response, 200, { success: true, message: 'Workspace deleted' })
  else sendJson(response, 200, found)
}
