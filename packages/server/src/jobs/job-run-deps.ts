import type { HostApi } from '@mags/protocol'
import type { Logger } from 'pino'
import type { JobMetrics } from '../health/metrics.ts'
import type { LogStore } from '../logs/log-store.ts'
import type { JobWorkspaceDeps } from '../workspaces/job-workspace.ts'
import type { JobFiles } from './job-files.ts'
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
}
