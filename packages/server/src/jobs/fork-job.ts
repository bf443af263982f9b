import { type ForkJobAnswer, type ForkJobRequest, MagsError } from '@mags/protocol'
import type { FastifyRequest } from 'fastify'
import type { AccessStore } from '../access/store.ts'
import { answerOnce } from '../http/answer-once.ts'
import { holdWorkspaces } from '../workspaces/hold-workspaces.ts'
import type { Turns } from '../workspaces/turns.ts'
import { digestOf } from './check-available.ts'
import { copyOf } from './copy-of.ts'
import type { Job } from './job.ts'
import { newRequestId } from './job.ts'
import type { JobRun } from './job-run.ts'
import { type MakeCopyDeps, makeCopy } from './make-copy.ts'
import { requireLasting } from './sleep/sleep-job.ts'
import type { SubmitDeps } from './submit-job.ts'

export interface ForkDeps extends SubmitDeps, MakeCopyDeps {
  readonly access: AccessStore
  readonly turns: Turns
  /** Copies that are being made, by request id: whether they have the memory, too. */
  readonly copies: Map<string, Promise<boolean>>
}

/**
 * Another job whose sandbox begins as this one's is now; a sleeping one is woken. Answers once the copy runs. When it cannot be made there is no job either, and the answer says why.
 * Rejects with MagsError 'bad_request' (not persistent), 'job_not_running', 'already_exists' (workspace), and as `RunningSandbox.fork`.
 */
export async function forkJob(deps: ForkDeps, request: FastifyRequest, source: Job, asked: ForkJobRequest): Promise<ForkJobAnswer> {
  const requestId = newRequestId()
  const wish = await wishedCopy(deps, source, requestId, asked)
  const made = Promise.withResolvers<boolean>()
  made.promise.catch(() => undefined)
  // Whoever repeats the request finds the answer before the copy is there.
  deps.copies.set(requestId, made.promise)
  try {
    const stored: { source: JobRun; copy: Job }[] = []
    const answer = await answerOnce(deps, request, { fork: source.requestId, ...asked }, async (transaction) => {
      const run = requireForkable(deps, source)
      const workspace = asked.workspace_id == null ? undefined : await newWorkspace(deps, source, wish, asked.workspace_id, transaction)
      const copy = { ...wish, ...workspace }
      await deps.store.insert(transaction, copy)
      // Of a transaction that is tried again the last one counts.
      stored.splice(0, 1, { source: run, copy })
      return { request_id: requestId, status: 'accepted' as const, message: 'Mags job forked successfully' }
    })
    const [own] = stored
    if (answer.request_id !== requestId || own === undefined) return { ...answer, with_memory: await copiedMemory(deps, answer.request_id) }
    made.resolve(makeCopy(deps, source, own.source, own.copy))
    return { ...answer, with_memory: await made.promise }
  } finally {
    made.reject(new MagsError('internal', 'the copy was not made'))
    deps.copies.delete(requestId)
  }
}

function requireForkable(deps: ForkDeps, source: Job): JobRun {
  const run = requireLasting(source, deps.dispatcher.find(source.requestId), 'fork')
  if (!run.uses.hasBegun) throw new MagsError('job_not_running', `job ${source.name} is still starting; try again once its status is running`)
  // Says so when the server ends, or has too much to do.
  deps.dispatcher.reserve(source.accountId)()
  return run
}

async function wishedCopy({ store, clock }: ForkDeps, source: Job, requestId: string, { name }: ForkJobRequest): Promise<Job> {
  if (name !== undefined) return copyOf(source, { requestId, name, now: clock() })
  const usual = `${source.name.slice(0, 58)}-fork`
  const taken = await store.find(source.accountId, usual)
  const free = taken === undefined ? usual : `${source.name.slice(0, 51)}-fork-${requestId.slice(0, 6)}`
  return copyOf(source, { requestId, name: free, now: clock() })
}

/** The copy holds it from the start, and saves all it has as its first version. */
async function newWorkspace(deps: ForkDeps, source: Job, copy: Job, workspaceId: string, transaction: Parameters<typeof holdWorkspaces>[0]) {
  const { workspaces, host } = deps
  if (await workspaces.find(source.accountId, workspaceId, transaction))
    throw new MagsError('already_exists', `workspace '${workspaceId}' already exists; choose another name, or delete it first`)
  const own = source.workspaceId === null ? undefined : await workspaces.find(source.accountId, source.workspaceId, transaction)
  // What it was made on, even if the image was built anew since.
  const digest = own?.imageDigest ?? digestOf(source.image, host.capabilities())
  const { accountId, image, diskGb } = source
  const wish = { accountId, requestId: copy.requestId, workspaceId, baseWorkspaceId: null, image: { name: image, digest }, diskGb, now: copy.createdAt }
  const { baseStorageId: _, ...held } = await holdWorkspaces(transaction, workspaces, wish)
  return { ...held, workspaceId }
}

/** What the first request with this key made; rejects as that did while it is being made. */
async function copiedMemory({ copies, store }: ForkDeps, requestId: string): Promise<boolean> {
  return (await copies.get(requestId)) ?? (await store.get(requestId))?.forkedWithMemory ?? false
}
