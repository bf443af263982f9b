import type { Requester } from '../http/requester.ts'
import { type CallOptions, jobPath } from '../jobs/status.ts'
import type { ForkJobWire, SleepWire, SshAccessWire, UrlAccessWire, WakeWire } from '../wire/answers.ts'
import { type Answer, toWire } from '../wire/names.ts'

export interface AccessOptions extends CallOptions {
  /** Who may see the URL: everybody, or who has a token of the account. Default: as it is, which is public at first. */
  visibility?: 'public' | 'token' | undefined
}

export interface SleepOptions extends CallOptions {
  /** Give the machine's memory back, too: a virtual machine's goes to disk, a container is made anew from its workspace. */
  release?: boolean | undefined
}

export interface ForkJobOptions extends CallOptions {
  name?: string | undefined
  /** The copy is saved as this workspace. */
  workspaceId?: string | undefined
}

/** A sleeping sandbox is woken first, which may take a restart of it. */
const wakeTimeoutMs = 120_000
/** Its workspace is saved before. */
const sleepTimeoutMs = 600_000
const sshPort = 22

/** How to reach a port of a job: 22 by SSH, every other by its URL, which then leads there. The job must be persistent; it is woken. */
export function enableAccess(requester: Requester, id: string, port: 22, options?: AccessOptions): Promise<Answer<SshAccessWire>>
export function enableAccess(requester: Requester, id: string, port: number, options?: AccessOptions): Promise<Answer<UrlAccessWire>>
export async function enableAccess(
  requester: Requester,
  id: string,
  port: number,
  options: AccessOptions = {},
): Promise<Answer<SshAccessWire> | Answer<UrlAccessWire>> {
  const { signal, ...fields } = options
  const body = { port, ...toWire(fields) }
  const request = { method: 'POST', path: jobPath(id, '/access'), body, signal, timeoutMs: wakeTimeoutMs, repeatable: true } as const
  return port === sshPort ? await requester.json<SshAccessWire>(request) : await requester.json<UrlAccessWire>(request)
}

/** Puts a persistent job to sleep now, its workspace saved. Idempotent. */
export async function sleepJob(requester: Requester, id: string, options: SleepOptions = {}): Promise<Answer<SleepWire>> {
  const { signal, ...fields } = options
  return await requester.json<SleepWire>({
    method: 'POST',
    path: jobPath(id, '/sleep'),
    body: toWire(fields),
    signal,
    timeoutMs: sleepTimeoutMs,
    repeatable: true,
  })
}

/** Wakes a sleeping job. Idempotent. */
export async function wakeJob(requester: Requester, id: string, options: CallOptions = {}): Promise<Answer<WakeWire>> {
  return await requester.json<WakeWire>({
    method: 'POST',
    path: jobPath(id, '/wake'),
    body: {},
    signal: options.signal,
    timeoutMs: wakeTimeoutMs,
    repeatable: true,
  })
}

/** Another persistent job with the files of this one, and with its memory and processes where its kind of sandbox can. */
export async function forkJob(requester: Requester, id: string, options: ForkJobOptions = {}): Promise<Answer<ForkJobWire>> {
  const { signal, ...fields } = options
  return await requester.json<ForkJobWire>({
    method: 'POST',
    path: jobPath(id, '/fork'),
    body: toWire(fields),
    headers: { 'idempotency-key': crypto.randomUUID() },
    signal,
    timeoutMs: sleepTimeoutMs,
    repeatable: true,
  })
}
