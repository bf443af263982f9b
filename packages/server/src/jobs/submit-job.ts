import { type HostApi, type HostCapabilities, type SubmitJobAnswer, type SubmitJobRequest, submitJobRequest } from '@mags/protocol'
import type { Transaction } from 'kysely'
import { ignoredMembers } from '../http/ignored-members.ts'
import type { GroupCommit } from '../state/group-commit.ts'
import type { Tables } from '../state/schema.ts'
import { timestamp } from '../state/timestamp.ts'
import { defaultDiskGb, type WorkspaceWish } from '../workspaces/hold-workspaces.ts'
import { refreshVersion } from '../workspaces/refresh-version.ts'
import type { WorkspaceStore } from '../workspaces/store.ts'
import { checkAvailable, chooseImage, digestOf } from './check-available.ts'
import type { Dispatcher } from './dispatcher.ts'
import { fetchScript } from './fetch-script.ts'
import { firstAnswer, idempotencyKeyOf, keyLifeMs } from './idempotency-key.ts'
import type { IdempotencyStore } from './idempotency-store.ts'
import type { Job } from './job.ts'
import type { JobFiles } from './job-files.ts'
import { newJob } from './new-job.ts'
import { storeJob } from './start-job.ts'
import type { JobStore } from './store.ts'

export interface SubmitDeps {
  readonly store: JobStore
  readonly workspaces: WorkspaceStore
  /** Absent: jobs cannot have uploaded files. */
  readonly files?: JobFiles
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
  /** Runs in the transaction that stores the job; when it rejects, there is no job. */
  readonly onStored?: (transaction: Transaction<Tables>, requestId: string) => Promise<void>
}

const defaultTimeoutSeconds = 300

/** Stores a job and hands it to the dispatcher; the answer is given once it is durable. */
export async function submitJob(deps: SubmitDeps, submission: Submission): Promise<SubmitJobAnswer> {
  const { request, accountId, acceptedAt } = submission
  const now = deps.clock()
  const notBefore = timestamp(now - keyLifeMs)
  const key = idempotencyKeyOf(submission)
  const earlier = key && (await deps.idempotency.find(accountId, key.key, notBefore))
  if (key && earlier) return firstAnswer<SubmitJobAnswer>(key, earlier)
  const capabilities = deps.host.capabilities()
  checkAvailable(request, capabilities, { files: deps.files !== undefined })
  const image = chooseImage(request, capabilities)
  const release = deps.dispatcher.reserve(accountId)
  try {
    const script = request.type === 'url' ? await (deps.fetchScript ?? fetchScript)(request.script) : request.script
    if (request.file_ids.length > 0) await deps.files?.check(accountId, request.file_ids)
    const wished = makeJob(accountId, { ...request, script }, image, now)
    const wish = makeWish(wished, request, capabilities)
    if (wish) await lookAtBase(deps, wish)
    const answer = makeAnswer(wished, submission.body)
    const { first, job } = await deps.commits.write(async (transaction) => {
      const first = key && (await deps.idempotency.claim(transaction, key, JSON.stringify(answer), wished.createdAt, notBefore))
      if (first) return { first, job: wished }
      const job = await storeJob(deps, transaction, wished, wish)
      await submission.onStored?.(transaction, job.requestId)
      return { first, job }
    })
    if (key && first) return firstAnswer<SubmitJobAnswer>(key, first)
    release()
    deps.dispatcher.add(job, acceptedAt)
    return answer
  } finally {
    release()
  }
}

function makeWish(job: Job, request: SubmitJobRequest, host: HostCapabilities): WorkspaceWish | undefined {
  const { accountId, requestId, workspaceId, baseWorkspaceId } = job
  if (workspaceId === null && baseWorkspaceId === null) return undefined
  const isDefault = request.image === undefined && request.rootfs_type === undefined
  const image = { name: job.image, digest: digestOf(job.image, host), isDefault }
  return { accountId, requestId, workspaceId, baseWorkspaceId, image, diskGb: request.disk_gb, now: job.createdAt }
}

/** A base without a version here may have one: the server can have died between a save and its note. */
async function lookAtBase(deps: SubmitDeps, wish: WorkspaceWish): Promise<void> {
  if (wish.baseWorkspaceId === null) return
  const base = await deps.workspaces.find(wish.accountId, wish.baseWorkspaceId)
  if (base?.version === 0) await refreshVersion(deps, base.storageId)
}

function makeJob(accountId: string, request: SubmitJobRequest, image: string, now: number): Job {
  const name = request.name === undefined ? {} : { name: request.name }
  const draft = {
    accountId,
    ...name,
    persistent: request.persistent,
    script: request.script,
    environment: request.environment,
    startupCommand: request.startup_command ?? null,
    noSleep: request.no_sleep,
    timeoutSeconds: request.timeout ?? (request.persistent ? null : defaultTimeoutSeconds),
    image,
    isolationWish: request.isolation,
    vcpus: request.vcpus ?? 1,
    memoryMb: request.memory_mb ?? 512,
    diskGb: request.disk_gb ?? defaultDiskGb,
    port: request.port,
    workspaceId: request.workspace_id ?? null,
    baseWorkspaceId: request.base_workspace_id ?? null,
    fileIds: request.file_ids,
    egress: request.egress ?? null,
  }
  return newJob(draft, now)
}

function makeAnswer(job: Job, body: Readonly<Record<string, unknown>>): SubmitJobAnswer {
  const warnings = ignoredMembers(body, submitJobRequest.shape)
  return { request_id: job.requestId, status: 'accepted', message: 'Mags job submitted successfully', ...warnings }
}
