import type { GatewayDirectory } from '@mags/protocol'
import type { Logger } from 'pino'
import type { OpenJobs } from './jobs/open-jobs.ts'
import type { HttpLimits } from './limits.ts'
import type { Withheld } from './request/upstream-head.ts'

/** What every request needs. */
export interface HttpDeps {
  readonly directory: GatewayDirectory
  readonly logger: Logger
  readonly limits: HttpLimits
  readonly jobs: OpenJobs
  /** Lower case, without a port. */
  readonly appsDomain: string
  readonly cookieKey: Uint8Array
  readonly publicWithheld: Withheld
}
