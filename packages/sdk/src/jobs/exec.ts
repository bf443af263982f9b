import { MagsApiError, MagsConnectionError } from '../errors.ts'
import type { Requester } from '../http/requester.ts'
import { keepAlive } from '../sse/parse-events.ts'
import type { ExecWire, LogRowWire } from '../wire/answers.ts'
import { logRowBytes } from '../wire/log-row-bytes.ts'
import { type Answer, toWire } from '../wire/names.ts'
import { parseData, readStream } from './read-stream.ts'
import { jobPath } from './status.ts'

export interface ExecOptions {
  /** Seconds; default 30. Over it the command is killed and its exit code is 124. */
  timeoutSeconds?: number | undefined
  /** The command's whole standard input. */
  stdin?: string | undefined
  environment?: Readonly<Record<string, string>> | undefined
  /** Absolute path in the sandbox. */
  cwd?: string | undefined
  /** Aborting drops the connection, on which the server ends the command. */
  signal?: AbortSignal | undefined
}

export type ExecEvent =
  | { readonly type: 'output'; readonly source: 'stdout' | 'stderr'; readonly bytes: Buffer }
  | { readonly type: 'system'; readonly message: string }
  | { readonly type: 'exit'; readonly exitCode: number; readonly durationMs: number | undefined; readonly truncated: boolean }

const defaultTimeoutSeconds = 30
/** On top of the command's own limit: waking the sandbox and the way there and back. */
const marginMs = 30_000

/** Runs one command in a job's sandbox and returns its output whole (bounded by the server). Not retried once it was sent: it may have run. */
export async function execCommand(requester: Requester, id: string, command: string, options: ExecOptions = {}): Promise<Answer<ExecWire>> {
  const { signal, ...fields } = options
  const timeoutMs = (options.timeoutSeconds ?? defaultTimeoutSeconds) * 1000 + marginMs
  return await requester.json<ExecWire>({ method: 'POST', path: jobPath(id, '/exec'), body: { command, ...toWire(fields) }, signal, timeoutMs })
}

/**
 * Runs one command and yields its output as it comes, `exit` last. Throws MagsConnectionError when the line breaks before the exit:
 * how the command ended is then not known.
 */
export async function* execStream(requester: Requester, id: string, command: string, options: ExecOptions = {}): AsyncGenerator<ExecEvent> {
  const { signal, ...fields } = options
  const request = {
    method: 'POST',
    path: jobPath(id, '/exec'),
    query: { stream: true },
    body: { command, ...toWire(fields) },
    headers: { accept: 'text/event-stream' },
    signal,
    timeoutMs: marginMs,
  } as const
  for await (const event of readStream(requester, request)) {
    if (event.event === keepAlive) continue
    const data = parseData(event)
    if (event.event === 'log') yield execEventFrom(data as unknown as LogRowWire)
    else if (event.event === 'end') {
      if (typeof data.error === 'string') throw streamError(data)
      yield { type: 'exit', exitCode: Number(data.exit_code ?? 1), durationMs: numberOr(data.duration_ms, undefined), truncated: data.truncated === true }
      return
    }
  }
  throw new MagsConnectionError(requester.apiUrl, 'ECONNRESET', `The connection to ${requester.apiUrl} was cut; how the command ended is not known.`)
}

function execEventFrom(row: LogRowWire): ExecEvent {
  return row.source === 'system' ? { type: 'system', message: row.message } : { type: 'output', source: row.source, bytes: logRowBytes(row) }
}

/** A failure after the answer had begun: it can no longer be an HTTP status. */
function streamError(data: Readonly<Record<string, unknown>>): MagsApiError {
  const code = typeof data.code === 'string' ? data.code : 'internal'
  return new MagsApiError({ status: 500, code, message: String(data.error), details: data.details, body: data })
}

function numberOr<Default>(value: unknown, otherwise: Default): number | Default {
  return typeof value === 'number' ? value : otherwise
}
