import { MagsApiError } from '../errors.ts'
import type { Requester } from '../http/requester.ts'
import type { DoneWire, JobListWire, JobState, StatusWire } from '../wire/answers.ts'
import { type Answer, toWire } from '../wire/names.ts'

export interface CallOptions {
  signal?: AbortSignal | undefined
}

export interface PageOptions extends CallOptions {
  /** From 1. */
  page?: number | undefined
  /** At most 100; default 20. */
  pageSize?: number | undefined
}

export interface ListOptions extends PageOptions {
  status?: JobState | undefined
  workspaceId?: string | undefined
}

export interface UpdateOptions extends CallOptions {
  /** null takes it away. */
  startupCommand?: string | null | undefined
  noSleep?: boolean | undefined
  /** Port that the job's URL reaches. */
  port?: number | undefined
  /** Who may see the URL. */
  visibility?: 'public' | 'token' | undefined
  egress?: 'none' | { readonly allow?: readonly string[]; readonly deny?: readonly string[] } | null | undefined
}

/** The path of a job, which may be named by its request id, its name or its workspace. */
export function jobPath(id: string, rest = ''): string {
  if (id === '') throw new TypeError('The id or name of a job must not be empty.')
  return `/mags-jobs/${encodeURIComponent(id)}${rest}`
}

export async function fetchStatus(requester: Requester, id: string, options: CallOptions = {}): Promise<Answer<StatusWire>> {
  return await requester.json<StatusWire>({ method: 'GET', path: jobPath(id, '/status'), signal: options.signal })
}

/** The newest unfinished job of that name or id, else the newest; null when there is none. */
export async function findJob(requester: Requester, nameOrId: string, options: CallOptions = {}): Promise<Answer<StatusWire> | null> {
  try {
    return await fetchStatus(requester, nameOrId, options)
  } catch (error) {
    if (error instanceof MagsApiError && error.status === 404 && error.code === 'not_found') return null
    throw error
  }
}

export async function listJobs(requester: Requester, options: ListOptions = {}): Promise<Answer<JobListWire>> {
  const { signal, ...filters } = options
  const query = toWire(filters) as Record<string, string | number>
  return await requester.json<JobListWire>({ method: 'GET', path: '/mags-jobs', query, signal })
}

/** Idempotent: stopping a job that has ended succeeds. */
export async function stopJob(requester: Requester, id: string, options: CallOptions = {}): Promise<Answer<DoneWire>> {
  return await requester.json<DoneWire>({ method: 'POST', path: jobPath(id, '/stop'), signal: options.signal, repeatable: true })
}

export async function updateJob(requester: Requester, id: string, options: UpdateOptions): Promise<Answer<DoneWire>> {
  const { signal, ...fields } = options
  return await requester.json<DoneWire>({ method: 'PATCH', path: jobPath(id), body: toWire(fields), signal, repeatable: true })
}
