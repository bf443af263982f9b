import type { HostApi } from '@mags/protocol'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Transaction } from 'kysely'
import { type AnswerOnceDeps, answerOnce } from '../http/answer-once.ts'
import { serverTiming } from '../http/server-timing.ts'
import type { Dispatcher } from '../jobs/dispatcher.ts'
import type { Job } from '../jobs/job.ts'
import { reservePlace } from '../jobs/queue/reserve-place.ts'
import { storeJob } from '../jobs/start-job.ts'
import type { JobStore } from '../jobs/store.ts'
import type { Tables } from '../state/schema.ts'
import type { WorkspaceStore } from '../workspaces/store.ts'

export interface AnswerWithRunDeps extends AnswerOnceDeps {
  readonly store: JobStore
  readonly workspaces: WorkspaceStore
  readonly dispatcher: Dispatcher
  readonly host: HostApi
}

/** A request, and what it is to be answered with. */
export interface Exchange {
  readonly request: FastifyRequest
  readonly reply: FastifyReply
}

/**
 * Starts a run and answers with 202; with an Idempotency-Key once. `prepare` runs in the transaction that stores the run, `present` makes the answer of it as it is stored. `body` is all that the request asks for.
 * Rejects as both, as `answerOnce`, and with MagsError 'no_capacity', 'rate_limited'.
 */
export async function answerWithRun<T extends object>(
  deps: AnswerWithRunDeps,
  { request, reply }: Exchange,
  body: Readonly<Record<string, unknown>>,
  prepare: (transaction: Transaction<Tables>) => Promise<Job>,
  present: (run: Job) => T,
): Promise<T> {
  const acceptedAt = performance.now()
  const place = reservePlace(deps.dispatcher, request)
  try {
    let stored: { readonly run: Job; readonly answer: T } | undefined
    const answer = await answerOnce(deps, request, body, async (transaction) => {
      place.require()
      const run = await storeJob(deps, transaction, await prepare(transaction))
      stored = { run, answer: present(run) }
      return stored.answer
    })
    place.release()
    // Not so when it is the answer of another request, which was first.
    if (stored?.answer === answer) deps.dispatcher.add(stored.run, acceptedAt)
    reply.code(202).header('server-timing', serverTiming({ store: Math.round((performance.now() - acceptedAt) * 1000) / 1000 }))
    return answer
  } finally {
    place.release()
  }
}
