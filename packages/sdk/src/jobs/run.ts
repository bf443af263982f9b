import type { Requester } from '../http/requester.ts'
import type { StatusWire, SubmitWire } from '../wire/answers.ts'
import { logRowBytes } from '../wire/log-row-bytes.ts'
import { type Answer, toWire } from '../wire/names.ts'
import { type FollowedRow, followEvents } from './follow-events.ts'
import { fetchStatus } from './status.ts'

export interface RunOptions {
  /** 1–63 of `A-Za-z0-9._-`. */
  name?: string | undefined
  /** `url`: the script is the http(s) address of one. */
  type?: 'inline' | 'url' | undefined
  /** Restored before and saved after the job; made when there is none. */
  workspaceId?: string | undefined
  /** A workspace to start from, which is not changed; together with `workspaceId` a fork of it. */
  baseWorkspaceId?: string | undefined
  /** Keep the sandbox after the script. */
  persistent?: boolean | undefined
  startupCommand?: string | undefined
  environment?: Readonly<Record<string, string>> | undefined
  /** Uploaded files, put into `/root` before the script starts. */
  fileIds?: readonly string[] | undefined
  /** Seconds the script may run; the server's default is 300, none for persistent jobs. */
  timeout?: number | undefined
  noSleep?: boolean | undefined
  diskGb?: number | undefined
  vcpus?: number | undefined
  memoryMb?: number | undefined
  image?: string | undefined
  isolation?: 'auto' | 'vm' | 'container' | undefined
  /** Port that the job's URL reaches; default 8080. */
  port?: number | undefined
  egress?: 'none' | { readonly allow?: readonly string[]; readonly deny?: readonly string[] } | undefined
  /** Two submits with the same key make one job (within 24 h). Default: a new one per call, so that the retries within it are safe. */
  idempotencyKey?: string | undefined
  signal?: AbortSignal | undefined
}

/** Submits a script. Resolves as soon as the server has it on record. */
export async function submitJob(requester: Requester, script: string, options: RunOptions = {}): Promise<Answer<SubmitWire>> {
  const { idempotencyKey = crypto.randomUUID(), signal, ...fields } = options
  return await requester.json<SubmitWire>({
    method: 'POST',
    path: '/mags-jobs',
    body: { script, ...toWire(fields) },
    headers: { 'idempotency-key': idempotencyKey },
    repeatable: true,
    signal,
  })
}

export type NewOptions = Omit<RunOptions, 'name' | 'type' | 'persistent' | 'workspaceId'>

/** A persistent job of this name on the workspace of this name, whose script ends at once. */
export async function newJob(requester: Requester, name: string, options: NewOptions = {}): Promise<Answer<SubmitWire>> {
  return await submitJob(requester, 'true', { ...options, name, workspaceId: name, persistent: true })
}

/** A job that ended: its status, and what it wrote. */
export type RunResult = Answer<StatusWire> & { readonly stdout: string; readonly stderr: string; readonly logs: readonly FollowedRow[] }

/**
 * Submits a script and waits for its end; of a persistent job, for the end of its script. A non-zero exit is a result, not an error.
 * Aborting stops the waiting, not the job.
 */
export async function runAndWait(requester: Requester, script: string, options: RunOptions = {}): Promise<RunResult> {
  const { requestId } = await submitJob(requester, script, options)
  const logs: FollowedRow[] = []
  for await (const event of followEvents(requester, requestId, { signal: options.signal })) {
    if (event.type !== 'log') break
    logs.push(event.row)
  }
  const status = await fetchStatus(requester, requestId, options)
  const textOf = (source: string) => Buffer.concat(logs.filter((row) => row.source === source).map(logRowBytes)).toString('utf8')
  return Object.assign(status, { stdout: textOf('stdout'), stderr: textOf('stderr'), logs })
}
