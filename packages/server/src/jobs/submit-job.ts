import { createHash, randomUUID } from 'node:crypto'
import { type HostApi, MagsError, type SubmitJobAnswer, type SubmitJobRequest, submitJobRequest } from '@mags/protocol'
import type { GroupCommit } from '../state/group-commit.ts'
import { timestamp } from '../state/timestamp.ts'
import { checkAvailable, chooseImage } from './check-available.ts'
import type { Dispatcher } from './dispatcher.ts'
import { fetchScript } from './fetch-script.ts'
import type { IdempotencyKey, IdempotencyStore, StoredAnswer } from './idempotency-store.ts'
import { type Job, newRequestId, newSubdomain, noTimings } from './job.ts'
import type { JobStore } from './store.ts'

export interface SubmitDeps {
  readonly store: JobStore
  readonly idempotency: IdempotencyStore
  readonly commits: GroupCommit
  readonly host: HostApi
  readonly dispatcher: Dispatcher
  readonly clock: () => number
  readonly fetchScript?: typeof fetchScript
}

export interface Submission {
  readonly accountId: string
  readonly request: SubmitJobRequest
  /** The body as it came, for warnings and the Idempotency-Key. */
  readonly body: Readonly<Record<string, unknown>>
  readonly idempotencyKey: string | undefined
  /** Reading of `performance.now()`. */
  readonly acceptedAt: number
}

const keyLifeMs = 24 * 3600 * 1000
const defaultTimeoutSeconds = 300
const mostWarnings = 20

/** Stores a job and hands it to the dispatcher; the answer is given once it is durable. */
export async function submitJob(deps: SubmitDeps, submission: Submission): Promise<SubmitJobAnswer> {
  const { request, accountId, acceptedAt } = submission
  const now = deps.clock()
  const notBefore = timestamp(now - keyLifeMs)
  const key = idempotencyKeyOf(submission)
  const earlier = key && (await deps.idempotency.find(accountId, key.key, notBefore))
  if (key && earlier) return firstAnswer(key, earlier)
  const capabilities = deps.host.capabilities()
  checkAvailable(request, capabilities)
  const image = chooseImage(request, capabilities)
  const release = deps.dispatcher.reserve()
  try {
    const script = request.type === 'url' ? await (deps.fetchScript ?? fetchScript)(request.script) : request.script
    const job = makeJob(accountId, { ...request, script }, image, now)
    const answer = makeAnswer(job, submission.body)
    const taken = await deps.commits.write(async (transaction) => {
      const first = key && (await deps.idempotency.claim(transaction, key, JSON.stringify(answer), job.createdAt, notBefore))
      if (!first) await deps.store.insert(transaction, job)
      return first
    })
    if (key && taken) return firstAnswer(key, taken)
    release()
    deps.dispatcher.add(job, acceptedAt)
    return answer
  } finally {
    release()
  }
}

function makeJob(accountId: string, request: SubmitJobRequest, image: string, now: number): Job {
  return {
    requestId: newRequestId(),
    jobId: randomUUID(),
    accountId,
    name: request.name ?? `mags-job-${Math.floor(now / 1000)}`,
    status: 'pending',
    persistent: request.persistent,
    script: request.script,
    environment: request.environment,
    startupCommand: request.startup_command ?? null,
    noSleep: request.no_sleep,
    timeoutSeconds: request.timeout ?? (request.persistent ? null : defaultTimeoutSeconds),
    image,
    isolationWish: request.isolation,
    isolation: null,
    vcpus: request.vcpus ?? 1,
    memoryMb: request.memory_mb ?? 512,
    diskGb: request.disk_gb ?? 2,
    port: request.port,
    subdomain: newSubdomain(),
    workspaceId: null,
    vmId: null,
    exitCode: null,
    error: null,
    timings: noTimings,
    createdAt: timestamp(now),
    startedAt: null,
    completedAt: null,
  }
}

function makeAnswer(job: Job, body: Readonly<Record<string, unknown>>): SubmitJobAnswer {
  const warnings = Object.keys(body)
    .filter((name) => !Object.hasOwn(submitJobRequest.shape, name))
    .slice(0, mostWarnings)
    .map((name) => `unknown member ${JSON.stringify(name.slice(0, 64))} was ignored`)
  const answer: SubmitJobAnswer = { request_id: job.requestId, status: 'accepted', message: 'Mags job submitted successfully' }
  return warnings.length === 0 ? answer : { ...answer, warnings }
}

function firstAnswer(key: IdempotencyKey, stored: StoredAnswer): SubmitJobAnswer {
  if (stored.bodyHash !== key.bodyHash)
    throw new MagsError('idempotency_conflict', 'Idempotency-Key: this key was used with a different body; use a new key for a new job')
  return JSON.parse(stored.answer) as SubmitJobAnswer
}

function idempotencyKeyOf({ accountId, body, idempotencyKey }: Submission): IdempotencyKey | undefined {
  if (idempotencyKey === undefined) return undefined
  if (!/^[\x21-\x7e]{1,255}$/.test(idempotencyKey)) throw new MagsError('bad_request', 'Idempotency-Key: must be 1 to 255 visible ASCII characters')
  return { accountId, key: idempotencyKey, bodyHash: createHash('sha256').update(canonicalJson(body)).digest('hex') }
}

/** JSON that does not depend on the order of members. */
function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_name, member: unknown) => {
    if (typeof member !== 'object' || member === null || Array.isArray(member)) return member
    return Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
  })
}
