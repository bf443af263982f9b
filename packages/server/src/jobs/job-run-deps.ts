import type { HostApi } from '@mags/protocol'
import type { Logger } from 'pino'
import type { JobMetrics } from '../health/metrics.ts'
import type { LogStore } from '../logs/log-store.ts'
import type { JobWorkspaceDeps } from '../workspaces/job-workspace.ts'
import type { Job } from './job.ts'
import type { JobFiles } from './job-files.ts'
import type { JobRun } from './job-run.ts'
import type { JobStore } from './store.ts'

export interface JobRunDeps {
  readonly store: JobStore
  readonly host: HostApi
  readonly logs: LogStore
  readonly clock: () => number
  readonly logger: Logger
  readonly metrics: JobMetrics
  /** How workspaces are saved. */
  readonly saving: JobWorkspaceDeps
  /** Absent: jobs cannot have uploaded files. */
  readonly files?: JobFiles
  /** From SIGTERM to the end of the sandbox, after a stop. */
  readonly stopGraceMs: number
  /** The same after a timeout. */
  readonly timeoutGraceMs: number
  /** The longest that a job may run that is not persistent, or that asks for a longer time; 0 or absent: no bound. */
  readonly maxJobSeconds?: number
  /** A try of a job failed, and there is to be another one, which this makes. Absent: there are none. */
  readonly onRetry?: (job: Job, before: JobRun) => JobRun
  /** A job was put to sleep. */
  readonly onAsleep?: () => void
  /** One is about to be woken; it is not when this throws. */
  readonly onWake?: (accountId: string) => void
  /** How many accounts there are that may have jobs; see `SandboxSpec.shares`. */
  readonly accounts?: () => number
}
