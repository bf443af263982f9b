import { randomUUID } from 'node:crypto'
import {
  type CreateMicrovmAnswer,
  type CreateMicrovmRequest,
  createMicrovmRequest,
  generateSshKey,
  type HostApi,
  MagsError,
  microvmDefaults,
} from '@mags/protocol'
import type { FastifyRequest } from 'fastify'
import { ownerOf } from '../access/owner.ts'
import type { AccessStore, SshKeys } from '../access/store.ts'
import { type AnswerOnceDeps, answerOnce } from '../http/answer-once.ts'
import { ignoredMembers } from '../http/ignored-members.ts'
import type { Job } from '../jobs/job.ts'
import { reservePlace } from '../jobs/queue/reserve-place.ts'
import { type StartJobDeps, storeJob } from '../jobs/start-job.ts'
import { timestamp } from '../state/timestamp.ts'
import { checkMicrovm, type MicrovmPlan } from './check-microvm.ts'
import { type Microvm, microvmWorkspaceId, nextJob } from './microvm.ts'
import type { MicrovmKeeper } from './microvm-keeper.ts'
import { presentMicrovm } from './present-microvm.ts'
import type { MicrovmStore } from './store.ts'

export interface CreateMicrovmDeps extends StartJobDeps, AnswerOnceDeps {
  readonly microvms: MicrovmStore
  readonly keeper: MicrovmKeeper
  readonly access: AccessStore
  readonly host: HostApi
  readonly appsUrlNow: () => string | undefined
}

/** Stores a microVM with its disk, port, keys and first job, all or nothing, and has that job run. Rejects as `checkMicrovm`, and with MagsError 'already_exists', 'no_capacity', 'rate_limited', and as `answerOnce`. */
export async function createMicrovm(deps: CreateMicrovmDeps, request: FastifyRequest, asked: CreateMicrovmRequest): Promise<CreateMicrovmAnswer> {
  const acceptedAt = performance.now()
  const plan = await checkMicrovm(deps.host, asked)
  const keys: SshKeys = plan.authorizedKeys.length > 0 ? { authorized: plan.authorizedKeys } : { made: await generateSshKey(asked.name) }
  const now = deps.clock()
  const wished = makeMicrovm(request.identity.accountId, asked, plan, now)
  const firstJob = nextJob(wished, { port: wished.port, egress: asked.egress ?? null }, now)
  const microvm = { ...wished, requestId: firstJob.requestId }
  const { id, accountId, workspaceId, diskGb } = microvm
  const { name, digest } = plan.image
  const wish = { accountId, requestId: firstJob.requestId, workspaceId, baseWorkspaceId: null, image: { name, digest }, diskGb, now: firstJob.createdAt }
  const warnings = [...plan.warnings, ...(ignoredMembers(request.rawBody, createMicrovmRequest.shape).warnings ?? [])]
  const place = reservePlace(deps.dispatcher, request)
  const stored: Job[] = []
  try {
    const answer = await answerOnce(deps, request, { microvm: request.rawBody }, async (transaction) => {
      place.require()
      if (!(await deps.microvms.insert(transaction, microvm))) throw nameTaken(asked.name)
      const job = await storeJob(deps, transaction, firstJob, wish)
      const sshPort = await deps.access.giveSsh(transaction, ownerOf(job), keys)
      // Of a transaction that is tried again the last one counts.
      stored.splice(0, 1, job)
      const shown = presentMicrovm(microvm, { job, isUp: undefined, appsUrl: deps.appsUrlNow(), sshPort })
      return warnings.length === 0 ? shown : { ...shown, warnings }
    })
    const [job] = stored
    if (job === undefined || answer.id !== id) return answer
    place.release()
    deps.keeper.expectBoot(microvm, job.requestId)
    deps.dispatcher.add(job, acceptedAt)
    void deps.keeper.look(id)
    return answer
  } finally {
    place.release()
  }
}

function makeMicrovm(accountId: string, asked: CreateMicrovmRequest, plan: MicrovmPlan, now: number): Microvm {
  const id = randomUUID()
  return {
    id,
    accountId,
    name: asked.name,
    wish: 'running',
    requestId: null,
    error: null,
    cpu: plan.cpu,
    memoryMb: plan.memoryMb,
    diskGb: plan.diskGb,
    image: plan.image.name,
    imageDigest: plan.image.digest,
    isolationWish: plan.isolation,
    init: plan.init,
    ipLease: asked.ip_lease ?? false,
    port: asked.port ?? microvmDefaults.port,
    workspaceId: microvmWorkspaceId(id),
    keyGenerated: plan.authorizedKeys.length === 0,
    keyDownloadedAt: null,
    createdAt: timestamp(now),
    updatedAt: timestamp(now),
  }
}

const nameTaken = (name: string) =>
  new MagsError(
    'already_exists',
    `name: there is a microVM ${JSON.stringify(name)} already; choose another name, or start that one with 'mags vm start ${name}'`,
  )
