import type { Job } from '../jobs/job.ts'
import { timestamp } from '../state/timestamp.ts'

/** What tells when a run was over. */
export interface RunTimes extends Pick<Job, 'persistent' | 'exitCode' | 'startedAt' | 'completedAt'> {
  readonly timings: Pick<Job['timings'], 'attachMs' | 'scriptMs'>
}

/** When a run was over: a persistent one once its script had ended, though its sandbox lives on. Null while it is not. */
export function endOfRun({ persistent, exitCode, startedAt, completedAt, timings }: RunTimes): string | null {
  const { attachMs, scriptMs } = timings
  if (completedAt !== null || !persistent || exitCode === null || startedAt === null || scriptMs === null) return completedAt
  return timestamp(Date.parse(startedAt) + Math.round((attachMs ?? 0) + scriptMs))
}

/** Milliseconds from its start to its end, or until `now` (ms since 1970); null before. */
export function durationOfRun(run: RunTimes, now: number): number | null {
  if (run.startedAt === null) return null
  const end = endOfRun(run)
  return Math.max(0, (end === null ? now : Date.parse(end)) - Date.parse(run.startedAt))
}
