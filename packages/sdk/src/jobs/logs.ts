import type { Requester } from '../http/requester.ts'
import type { LogsWire } from '../wire/answers.ts'
import { type Answer, toWire } from '../wire/names.ts'
import { jobPath } from './status.ts'

export interface LogsOptions {
  source?: 'stdout' | 'stderr' | 'system' | undefined
  /** A cursor, such as `next` of an earlier answer: only rows after it. */
  after?: string | undefined
  /** Rows in the answer; default 1,000, at most 10,000. */
  limit?: number | undefined
  signal?: AbortSignal | undefined
}

/** One page of a job's log, oldest first. */
export async function fetchLogs(requester: Requester, id: string, options: LogsOptions = {}): Promise<Answer<LogsWire>> {
  const { signal, ...filters } = options
  const query = toWire(filters) as Record<string, string | number>
  return await requester.json<LogsWire>({ method: 'GET', path: jobPath(id, '/logs'), query, signal })
}
