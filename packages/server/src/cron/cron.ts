import type { CronCause, CronOverlap, JobStatus } from '@mags/protocol'

/** A script with the times it runs at. */
export interface Cron {
  readonly cronId: string
  readonly accountId: string
  /** Unique in the account. */
  readonly name: string
  /** Five fields. */
  readonly schedule: string
  /** IANA name. */
  readonly timezone: string
  readonly script: string
  /** The other members of a submit, as they were given (snake_case). Checked, but not with defaults: those are the ones of the day it runs. */
  readonly fields: Readonly<Record<string, unknown>>
  readonly enabled: boolean
  readonly overlap: CronOverlap
  /** Null: it is disabled, or `error` says why it cannot be scheduled. */
  readonly nextRunAt: string | null
  readonly error: string | null
  readonly createdAt: string
  readonly updatedAt: string
}

/**
 * One run of a cron.
 *
 *     starting ──► submitted   its job is stored, in the same transaction
 *      ▲  │  └───► failed      the job was refused; `reason` has the words
 *      │  ▼
 *     waiting ───► skipped     the cron was disabled meanwhile
 *     skipped                  at once: another run was not over, or too many wait
 *
 * A run is stored, in the transaction that moves its cron to the next time, before its job is submitted: what a crash leaves in `starting` is submitted by the next start.
 */
export interface CronRun {
  readonly runId: string
  readonly cronId: string
  /** Unique for a cron, but for manual runs. */
  readonly scheduledFor: string
  readonly cause: CronCause
  readonly status: 'starting' | 'waiting' | 'skipped' | 'failed' | 'submitted'
  readonly reason: string | null
  readonly requestId: string | null
  readonly createdAt: string
  /** What its job is at; null without one. */
  readonly job: { readonly status: JobStatus; readonly exitCode: number | null; readonly startedAt: string | null; readonly completedAt: string | null } | null
}
