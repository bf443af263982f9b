import type { Requester } from '../http/requester.ts'
import { type CallOptions, jobPath, type PageOptions } from '../jobs/status.ts'
import type {
  DoneWire,
  RestoreWorkspaceWire,
  SyncWire,
  WorkspaceDiffWire,
  WorkspaceListWire,
  WorkspaceVersionListWire,
  WorkspaceWire,
} from '../wire/answers.ts'
import { type Answer, toWire } from '../wire/names.ts'

export interface ForkOptions extends CallOptions {
  /** Which state to start from; default: the newest. */
  version?: number | undefined
}

export interface DiffOptions extends CallOptions {
  /** Default: the version before `to`. */
  from?: number | undefined
  /** Default: the newest. */
  to?: number | undefined
  /** With the changed lines of text files up to 1 MiB. */
  content?: boolean | undefined
  /** Paths in the answer; default 1,000, at most 100,000. */
  limit?: number | undefined
}

/** For what may have to read from or write to the object store before it answers. */
const storeTimeoutMs = 600_000

/** Newest first. */
export async function listWorkspaces(requester: Requester, options: PageOptions = {}): Promise<Answer<WorkspaceListWire>> {
  const { signal, ...paging } = options
  return await requester.json<WorkspaceListWire>({ method: 'GET', path: '/mags-workspaces', query: toQuery(paging), signal })
}

export async function fetchWorkspace(requester: Requester, id: string, options: CallOptions = {}): Promise<Answer<WorkspaceWire>> {
  return await requester.json<WorkspaceWire>({ method: 'GET', path: workspacePath(id), signal: options.signal })
}

/** Takes all its versions along, also in the object store. Refused while a job has it. */
export async function deleteWorkspace(requester: Requester, id: string, options: CallOptions = {}): Promise<Answer<DoneWire>> {
  return await requester.json<DoneWire>({ method: 'DELETE', path: workspacePath(id), signal: options.signal, timeoutMs: storeTimeoutMs })
}

/** Makes the workspace `newId` begin as `id` is; nothing is copied. */
export async function forkWorkspace(requester: Requester, id: string, newId: string, options: ForkOptions = {}): Promise<Answer<WorkspaceWire>> {
  const { signal, ...rest } = options
  const body = toWire({ workspaceId: newId, ...rest })
  return await requester.json<WorkspaceWire>({ method: 'POST', path: workspacePath(id, '/fork'), body, signal, timeoutMs: storeTimeoutMs, ...safeToRepeat() })
}

/** Newest first. */
export async function fetchWorkspaceVersions(requester: Requester, id: string, options: PageOptions = {}): Promise<Answer<WorkspaceVersionListWire>> {
  const { signal, ...paging } = options
  return await requester.json<WorkspaceVersionListWire>({ method: 'GET', path: workspacePath(id, '/versions'), query: toQuery(paging), signal })
}

/** Makes a new version with the contents of an earlier one; nothing is copied. */
export async function restoreWorkspace(requester: Requester, id: string, version: number, options: CallOptions = {}): Promise<Answer<RestoreWorkspaceWire>> {
  const { signal } = options
  const path = workspacePath(id, '/restore')
  return await requester.json<RestoreWorkspaceWire>({ method: 'POST', path, body: { version }, signal, timeoutMs: storeTimeoutMs, ...safeToRepeat() })
}

/** What is different between two versions, by path. */
export async function diffWorkspace(requester: Requester, id: string, options: DiffOptions = {}): Promise<Answer<WorkspaceDiffWire>> {
  const { signal, ...query } = options
  const path = workspacePath(id, '/diff')
  return await requester.json<WorkspaceDiffWire>({ method: 'GET', path, query: toQuery(query), signal, timeoutMs: storeTimeoutMs })
}

/** Gives it a bigger disk, from the next start of a job on. */
export async function resizeWorkspace(requester: Requester, id: string, diskGb: number, options: CallOptions = {}): Promise<Answer<WorkspaceWire>> {
  const { signal } = options
  return await requester.json<WorkspaceWire>({ method: 'PATCH', path: workspacePath(id), body: { disk_gb: diskGb }, signal, repeatable: true })
}

/** Saves the workspace of a running job now; resolves when it is durable. */
export async function syncJob(requester: Requester, id: string, options: CallOptions = {}): Promise<Answer<SyncWire>> {
  const { signal } = options
  return await requester.json<SyncWire>({ method: 'POST', path: jobPath(id, '/sync'), signal, timeoutMs: storeTimeoutMs, repeatable: true })
}

function workspacePath(id: string, rest = ''): string {
  if (id === '') throw new TypeError('The name of a workspace must not be empty.')
  return `/mags-workspaces/${encodeURIComponent(id)}${rest}`
}

/** A key with which the server does once what it is sent twice. */
function safeToRepeat() {
  return { headers: { 'idempotency-key': crypto.randomUUID() }, repeatable: true }
}

function toQuery(options: object): Record<string, string | number | boolean> {
  return toWire(options) as Record<string, string | number | boolean>
}
