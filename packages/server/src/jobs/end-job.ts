import type { JobLog } from '../logs/job-log.ts'
import { storageFaultOf } from '../state/storage-fault.ts'
import { timestamp } from '../state/timestamp.ts'
import type { JobWorkspace } from '../workspaces/job-workspace.ts'
import type { JobTimings } from './job.ts'
import type { JobEgress } from './job-egress.ts'
import { type Verdict, withUnsaved } from './job-outcome.ts'
import type { JobRunDeps } from './job-run-deps.ts'
import { storeSurely } from './store-surely.ts'

/** What a job leaves when it ends. */
export interface EndingJob {
  readonly requestId: string
  readonly log: JobLog
  readonly workspace: JobWorkspace | undefined
  readonly egress: JobEgress
  /** Complete once everything is in the log. */
  readonly timings: () => JobTimings
  /** Somebody waits for its end: its workspace has less time to be saved. */
  readonly stopping: () => boolean
  /** Nobody waits any more until there is room on a full disk: what cannot be stored then is lost, or found by the next process. */
  readonly giveUp: AbortSignal
  /** Hears that log or status wait for room, and why. */
  readonly onFull: (words: string) => void
}

/** Saves the workspace, stores log and status, in this order, and tells the followers. Never rejects. */
export async function endJob(deps: Pick<JobRunDeps, 'store' | 'clock' | 'logger' | 'metrics' | 'logs'>, job: EndingJob, verdict: Verdict): Promise<void> {
  const { requestId, log, workspace, egress, timings, stopping, giveUp, onFull } = job
  const warn = (err: unknown, words: string) => deps.logger.warn({ err, requestId }, words)
  if (verdict.row !== undefined) await log.system(verdict.row, 'error')
  const unsaved = await workspace?.finish({ stopping: stopping() })
  if (unsaved !== undefined) await log.system(unsaved, 'error')
  const { status, exitCode, error } = unsaved === undefined ? verdict : withUnsaved(verdict, unsaved)
  await egress.finish()
  await flushLog(log, { giveUp, onFull })
  const lost = log.fault && `output was lost: ${storageFaultOf(log.fault) ?? log.fault.message}`
  if (lost !== undefined) warn(log.fault, 'the log of a job could not be written')
  const outcome = {
    status,
    exitCode,
    error: [error, lost].filter((words) => words != null).join('; ') || null,
    timings: timings(),
    completedAt: timestamp(deps.clock()),
  }
  await storeSurely(
    () => deps.store.finish(requestId, outcome),
    (fault) => warn(fault, 'the state of a job could not be stored'),
    { giveUp, onFull },
  )
  deps.metrics.finished(status, outcome.timings.startMs)
  await log.end({ status, exitCode }).catch((fault: unknown) => warn(fault, 'the log of a job could not be closed'))
  deps.logs.release(requestId)
}

/** All that is to be in the log is in its file, or lost. */
export async function flushLog(log: JobLog, { giveUp, onFull }: Pick<EndingJob, 'giveUp' | 'onFull'>): Promise<void> {
  const end = new AbortController()
  const stop = () => log.giveUp()
  giveUp.addEventListener('abort', stop, { once: true, signal: end.signal })
  if (giveUp.aborted) stop()
  void log.sticking.then(() => {
    if (!end.signal.aborted && log.stuck !== undefined) onFull(log.stuck)
  })
  await log.flush()
  end.abort()
}
