import type { Isolation, IsolationWish, JobStatus } from '@mags/protocol'
import type { Generated } from 'kysely'

/** The tables as Kysely sees them. Times are RFC 3339 text with milliseconds, flags 0 or 1, so that both databases hold the same. */

export interface JobsTable {
  /** Order of arrival. */
  seq: Generated<number>
  request_id: string
  job_id: string
  account_id: string
  name: string
  status: JobStatus
  persistent: number
  script: string
  /** JSON object. */
  environment: string
  startup_command: string | null
  no_sleep: number
  timeout_seconds: number | null
  image: string
  isolation_wish: IsolationWish
  isolation: Isolation | null
  vcpus: number
  memory_mb: number
  disk_gb: number
  port: number
  subdomain: string
  workspace_id: string | null
  vm_id: string | null
  exit_code: number | null
  error: string | null
  queue_ms: number | null
  acquire_ms: number | null
  attach_ms: number | null
  first_byte_ms: number | null
  start_ms: number | null
  script_ms: number | null
  created_at: string
  started_at: string | null
  completed_at: string | null
}

export interface TokensTable {
  id: string
  account_id: string
  name: string
  /** SHA-256 of the secret, hex. */
  hash: string
  /** The first characters of the secret, to tell tokens apart. */
  prefix: string
  created_at: string
  last_used_at: string | null
}

export interface IdempotencyKeysTable {
  account_id: string
  key: string
  /** SHA-256 of the body, hex. */
  body_hash: string
  /** The first answer, JSON. */
  answer: string
  created_at: string
}

export interface Tables {
  jobs: JobsTable
  tokens: TokensTable
  idempotency_keys: IdempotencyKeysTable
}
