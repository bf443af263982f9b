import type { Requester } from '../http/requester.ts'
import type { RunOptions } from '../jobs/run.ts'
import type { CallOptions, PageOptions } from '../jobs/status.ts'
import type { CronListWire, CronRunListWire, CronRunWire, CronWire, DoneWire } from '../wire/answers.ts'
import { type Answer, toWire } from '../wire/names.ts'

interface CronTimes {
  /** Unique; 1–63 of `A-Za-z0-9._-`. Jobs are called `<name>-<unix seconds>`. */
  name: string
  /** Five fields, such as `0 3 * * *`; or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. */
  schedule: string
  script: string
  /** IANA name, such as `Europe/Berlin`; default UTC. */
  timezone?: string | undefined
  /** Default true. */
  enabled?: boolean | undefined
  /** What becomes of a run that is due while another is not over; default `skip`. */
  overlap?: 'skip' | 'queue' | 'allow' | undefined
}

/** Times, and what every run is submitted with. */
export type CronOptions = CronTimes & Omit<RunOptions, 'name'>

/** What changes; null goes back to the default. */
export type CronChanges = { [Name in keyof Omit<CronOptions, 'signal' | 'idempotencyKey'>]?: CronOptions[Name] | null | undefined } & CallOptions

export async function createCron(requester: Requester, options: CronOptions): Promise<Answer<CronWire>> {
  const { signal, idempotencyKey = crypto.randomUUID(), ...fields } = options
  const headers = { 'idempotency-key': idempotencyKey }
  return await requester.json<CronWire>({ method: 'POST', path: '/mags-cron', body: toWire(fields), headers, repeatable: true, signal })
}

/** Newest first. */
export async function listCrons(requester: Requester, options: PageOptions = {}): Promise<Answer<CronListWire>> {
  const { signal, ...paging } = options
  return await requester.json<CronListWire>({ method: 'GET', path: '/mags-cron', query: toWire(paging) as Record<string, number>, signal })
}

export async function fetchCron(requester: Requester, id: string, options: CallOptions = {}): Promise<Answer<CronWire>> {
  return await requester.json<CronWire>({ method: 'GET', path: cronPath(id), signal: options.signal })
}

/** A new schedule, zone or enabling begins anew: nothing that was missed before is caught up. */
export async function updateCron(requester: Requester, id: string, changes: CronChanges): Promise<Answer<CronWire>> {
  const { signal, ...fields } = changes
  return await requester.json<CronWire>({ method: 'PATCH', path: cronPath(id), body: toWire(fields), repeatable: true, signal })
}

/** With its history; jobs that it started go on. */
export async function deleteCron(requester: Requester, id: string, options: CallOptions = {}): Promise<Answer<DoneWire>> {
  return await requester.json<DoneWire>({ method: 'DELETE', path: cronPath(id), signal: options.signal })
}

/** Runs it now, also while it is disabled. The answer tells when it was skipped, waits, or could not start. */
export async function runCron(requester: Requester, id: string, options: CallOptions = {}): Promise<Answer<CronRunWire>> {
  const headers = { 'idempotency-key': crypto.randomUUID() }
  return await requester.json<CronRunWire>({ method: 'POST', path: cronPath(id, '/run'), headers, repeatable: true, signal: options.signal })
}

/** Newest first; the last hundred. */
export async function listCronRuns(requester: Requester, id: string, options: PageOptions = {}): Promise<Answer<CronRunListWire>> {
  const { signal, ...paging } = options
  return await requester.json<CronRunListWire>({ method: 'GET', path: cronPath(id, '/runs'), query: toWire(paging) as Record<string, number>, signal })
}

function cronPath(id: string, rest = ''): string {
  if (id === '') throw new TypeError('The id or name of a cron must not be empty.')
  return `/mags-cron/${encodeURIComponent(id)}${rest}`
}
