import { MagsApiError, MagsConnectionError } from '../errors.ts'
import type { Requester } from '../http/requester.ts'
import { backoffMs, wait } from '../http/wait.ts'
import { keepAlive, type ServerEvent } from '../sse/parse-events.ts'
import type { JobState, LogRowWire } from '../wire/answers.ts'
import { type Answer, withCamelNames } from '../wire/names.ts'
import { parseData, readStream } from './read-stream.ts'
import { jobPath } from './status.ts'

/** A row of the log, with the cursor to go on after it. */
export type FollowedRow = Answer<LogRowWire> & { readonly cursor: string | undefined }

/** `State`: the words that its API has for how a job stands. */
export type JobEvent<State extends string = JobState> =
  | { readonly type: 'log'; readonly row: FollowedRow }
  /** The script of a persistent job ended; the job goes on. */
  | { readonly type: 'exit'; readonly exitCode: number | null }
  | { readonly type: 'end'; readonly status: State; readonly exitCode: number | null }

export interface FollowOptions {
  source?: 'stdout' | 'stderr' | 'system' | undefined
  /** A cursor: only rows after it. */
  after?: string | undefined
  /** How long to try again after the connection was lost; default 60,000. */
  reconnectForMs?: number | undefined
  /** Told of each failed try before the next: why, and how many have failed before it since the last answer. What it throws ends the following. */
  onDisconnect?: ((error: unknown, failures: number) => void | Promise<void>) | undefined
  signal?: AbortSignal | undefined
}

/**
 * Yields what happens to a job, from its first row (or `after`) to its end, each row once. A lost connection is taken up again behind the
 * last row received, at growing intervals. A slow reader slows the stream, not the job. Throws MagsConnectionError after
 * `reconnectForMs` without an answer, MagsApiError for an answer that more tries will not change.
 */
export function followEvents(requester: Requester, id: string, options: FollowOptions = {}): AsyncGenerator<JobEvent> {
  return followEventsOf<JobState>(requester, jobPath(id, '/logs'), options)
}

/** The same for whatever has its log at `path`. */
export async function* followEventsOf<State extends string>(requester: Requester, path: string, options: FollowOptions): AsyncGenerator<JobEvent<State>> {
  const seen: Seen = { cursor: options.after, exit: false }
  let failures = 0
  let lastSignOfLifeMs = performance.now()
  for (;;) {
    let failure: unknown
    try {
      for await (const event of readStream(requester, followRequest(path, options, seen.cursor))) {
        failures = 0
        const happened = jobEventFrom<State>(event, seen)
        if (happened !== undefined) yield happened
        if (happened?.type === 'end') return
        // After the yield: a reader that takes its time is not a server that is silent.
        lastSignOfLifeMs = performance.now()
      }
      failure = new MagsConnectionError(requester.apiUrl, 'ECONNRESET', `The connection to ${requester.apiUrl} was closed before the job ended.`)
    } catch (error) {
      if (!mayPass(error)) throw error
      failure = error
    }
    if (performance.now() - lastSignOfLifeMs > (options.reconnectForMs ?? 60_000)) throw failure
    await options.onDisconnect?.(failure, failures)
    const asked = failure instanceof MagsApiError ? (failure.retryAfterSeconds ?? 0) * 1000 : 0
    await wait(Math.max(Math.min(asked, 30_000), backoffMs(failures)), options.signal)
    failures += 1
  }
}

/** Only the rows of {@link followEvents}; ends when the job has ended. */
export async function* followLogs(requester: Requester, id: string, options: FollowOptions = {}): AsyncGenerator<FollowedRow> {
  for await (const event of followEvents(requester, id, options)) if (event.type === 'log') yield event.row
}

interface Seen {
  cursor: string | undefined
  exit: boolean
}

function followRequest(path: string, options: FollowOptions, cursor: string | undefined) {
  return {
    method: 'GET',
    path,
    query: { follow: true, source: options.source, after: cursor },
    headers: { accept: 'text/event-stream', ...(cursor === undefined ? {} : { 'last-event-id': cursor }) },
    signal: options.signal,
  } as const
}

/** Undefined for what the reader need not know: comments, events of later versions, and what came twice over a reconnection. */
function jobEventFrom<State extends string>(event: ServerEvent, seen: Seen): JobEvent<State> | undefined {
  if (event.event === keepAlive) return undefined
  if (event.event === 'log') {
    if (event.id !== undefined && event.id === seen.cursor) return undefined
    seen.cursor = event.id ?? seen.cursor
    const row = withCamelNames(parseData(event)) as unknown as Answer<LogRowWire>
    return { type: 'log', row: Object.assign(row, { cursor: event.id }) }
  }
  if (event.event === 'exit' && !seen.exit) {
    seen.exit = true
    return { type: 'exit', exitCode: exitCodeOf(parseData(event)) }
  }
  if (event.event === 'end') {
    const data = parseData(event)
    return { type: 'end', status: data.status as State, exitCode: exitCodeOf(data) }
  }
  return undefined
}

function exitCodeOf(data: Readonly<Record<string, unknown>>): number | null {
  return typeof data.exit_code === 'number' ? data.exit_code : null
}

function mayPass(error: unknown): boolean {
  return error instanceof MagsConnectionError || (error instanceof MagsApiError && (error.status === 429 || error.status >= 500))
}
