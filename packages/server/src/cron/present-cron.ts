import type { CronAnswer, CronRunAnswer } from '@mags/protocol'
import type { Cron, CronRun } from './cron.ts'

/** A cron as the API gives it, with the members of a submit that it was given. */
export function presentCron(cron: Cron, lastRun: CronRun | undefined): CronAnswer {
  return {
    cron_id: cron.cronId,
    name: cron.name,
    schedule: cron.schedule,
    timezone: cron.timezone,
    script: cron.script,
    enabled: cron.enabled,
    overlap: cron.overlap,
    ...cron.fields,
    next_run_at: cron.nextRunAt,
    last_run: lastRun === undefined ? null : presentRun(lastRun),
    error: cron.error,
    created_at: cron.createdAt,
    updated_at: cron.updatedAt,
  }
}

export function presentRun(run: CronRun): CronRunAnswer {
  return {
    run_id: run.runId,
    scheduled_for: run.scheduledFor,
    cause: run.cause,
    // A submitted run has a job, for as long as jobs are kept.
    status: run.status === 'submitted' ? (run.job?.status ?? 'completed') : run.status,
    reason: run.reason,
    request_id: run.requestId,
    started_at: run.job?.startedAt ?? null,
    completed_at: run.job?.completedAt ?? null,
    exit_code: run.job?.exitCode ?? null,
  }
}
