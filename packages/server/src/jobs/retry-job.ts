import { timestamp } from '../state/timestamp.ts'
import { type EndingJob, endJob, flushLog } from './end-job.ts'
import type { Job } from './job.ts'
import type { Verdict } from './job-outcome.ts'
import type { JobRun } from './job-run.ts'
import type { JobRunDeps } from './job-run-deps.ts'
import { storeSurely } from './store-surely.ts'

/** Which try it was, and what was agreed about others. */
export interface Tries {
  readonly attempt: number
  readonly maxRetries: number
  readonly retryBackoffSeconds: number
}

/** A try that is to end. */
export interface EndingTry extends EndingJob {
  readonly tries: Tries
  readonly endSandbox: () => Promise<void>
  /** It may be another try that ends it, which this makes; undefined: there are none. */
  readonly next: ((job: Job) => JobRun) | undefined
}

const longestBackoffSeconds = 24 * 3600

/** How long the next try waits: twice as long as the one before, a day at most. */
export const backoffSecondsOf = ({ attempt, retryBackoffSeconds }: Tries): number => Math.min(longestBackoffSeconds, retryBackoffSeconds * 2 ** (attempt - 1))

/** Ends a job, or has it tried again, when that may help: then the next try, which waits already. Never rejects. */
export async function endTry(deps: Parameters<typeof endJob>[0], job: EndingTry, verdict: Verdict): Promise<JobRun | undefined> {
  const { tries, next } = job
  if (next === undefined || !verdict.retryable || tries.attempt > tries.maxRetries) {
    await endJob(deps, job, verdict)
    return undefined
  }
  const again = await retryJob(deps, job, verdict)
  if (again !== undefined) return next(again)
  // Its workspace is saved by now, and its sandbox gone.
  await endJob(deps, { ...job, workspace: undefined }, verdict)
  return undefined
}

/**
 * Puts a job back among those that wait, after a try that failed: its workspace saved, its sandbox gone, its log going on. Undefined when the job is over, or that could not be stored. Never rejects.
 *
 * The row comes first: when we die in between, the next process finds a job that was running, and one row more is all that shows of it.
 */
async function retryJob(deps: Pick<JobRunDeps, 'store' | 'clock' | 'logger'>, job: EndingTry, verdict: Verdict): Promise<Job | undefined> {
  const { requestId, log, workspace, egress, tries, giveUp, onFull } = job
  const warn = (err: unknown, words: string) => deps.logger.warn({ err, requestId }, words)
  const unsaved = await workspace?.finish({ stopping: false })
  if (unsaved !== undefined) await log.system(unsaved, 'error')
  await egress.finish()
  await job.endSandbox()
  const backoffSeconds = backoffSecondsOf(tries)
  const next = backoffSeconds === 0 ? 'the next begins now' : `the next begins in ${backoffSeconds} s`
  try {
    await flushLog(log, { giveUp, onFull })
    await log.beginAnew(`attempt ${tries.attempt} of ${tries.maxRetries + 1} failed: ${verdict.error ?? 'for an unknown reason'}; ${next}`)
    let isStored = false
    const store = async () => {
      isStored = await deps.store.retry(requestId, timestamp(deps.clock() + backoffSeconds * 1000))
    }
    await storeSurely(store, (fault) => warn(fault, 'that a job is to be tried again could not be stored'), { giveUp, onFull })
    return isStored ? await deps.store.get(requestId) : undefined
  } catch (error) {
    warn(error, 'a job could not be tried again')
    return undefined
  }
}
