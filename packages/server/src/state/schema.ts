import type { CronCause, CronOverlap, Isolation, IsolationWish, JobStatus, SleepStage, Visibility } from '@mags/protocol'
import type { Generated } from 'kysely'
import type { JobKind } from '../jobs/job.ts'
import type { BuildStepsTable, BuildStoragesTable } from './build-cache-schema.ts'
import type { ImageTasksTable, IpLeasesTable, JobDefinitionsTable, JobTemplateRevisionsTable, JobTemplatesTable, MicrovmsTable } from './jobs-api-schema.ts'

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
  base_workspace_id: string | null
  workspace_storage_id: string | null
  workspace_fence: number | null
  base_storage_id: string | null
  workspace_version: number | null
  workspace_synced_at: string | null
  workspace_size_bytes: number | null
  workspace_uploaded_bytes: number | null
  /** JSON array. */
  file_ids: string
  /** Set while it sleeps. */
  sleep_stage: SleepStage | null
  slept_at: string | null
  woken_at: string | null
  wake_reason: string | null
  wake_ms: number | null
  /** Its sandbox was made anew from its workspace: what runs in it first is the startup command. */
  restarted: Generated<number>
  /** Its URL was opened, or has had a request. */
  url_used: Generated<number>
  /** JSON of an egress policy. */
  egress: string | null
  egress_bytes: number | null
  /** Request id of the job whose sandbox this one's is a copy of. */
  forked_from: string | null
  /** Null until the copy runs: before that nobody was told of it. */
  forked_with_memory: number | null
  kind: Generated<JobKind>
  /** A row of job_definitions, or of microvms. */
  definition_id: string | null
  priority: Generated<number>
  max_retries: Generated<number>
  retry_backoff_seconds: Generated<number>
  attempt: Generated<number>
  not_before: string | null
  warm: number | null
  workspace_scope: string | null
  init: Generated<number>
  image_digest: string | null
  ip_lease: Generated<number>
  ipv4_address: string | null
  ipv6_address: string | null
}

export interface WorkspacesTable {
  /** Order of creation. */
  seq: Generated<number>
  /** 32 lower-case hex digits: its name on the host and in the object store. */
  storage_id: string
  account_id: string
  workspace_id: string
  fence: number
  image: string
  image_digest: string
  disk_gb: number
  size_bytes: number
  version: number
  base_workspace_id: string | null
  /** Only what lies below this folder is kept. */
  scope: string | null
  created_at: string
  updated_at: string
  synced_at: string | null
  unsaved_since: string | null
  save_error: string | null
  holder_request_id: string | null
  /** Not a workspace of its account (any more or yet): what it has on the host and in the object store is to be taken away. */
  removed_at: string | null
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

export interface FilesTable {
  /** Order of arrival. */
  seq: Generated<number>
  file_id: string
  account_id: string
  file_name: string
  size_bytes: number
  created_at: string
  last_used_at: string
}

export interface UrlAliasesTable {
  /** Order of creation. */
  seq: Generated<number>
  subdomain: string
  account_id: string
  workspace_id: string
  domain: string | null
  created_at: string
  updated_at: string
}

export interface CronsTable {
  /** Order of creation. */
  seq: Generated<number>
  cron_id: string
  account_id: string
  name: string
  schedule: string
  timezone: string
  script: string
  /** JSON object: the other members of a submit, as they were given. */
  fields: string
  enabled: number
  overlap: CronOverlap
  /** Null: never, for it is disabled or cannot be scheduled. */
  next_run_at: string | null
  error: string | null
  created_at: string
  updated_at: string
}

export interface CronRunsTable {
  /** Order of arrival. */
  seq: Generated<number>
  run_id: string
  cron_id: string
  scheduled_for: string
  cause: CronCause
  status: 'starting' | 'waiting' | 'skipped' | 'failed' | 'submitted'
  reason: string | null
  request_id: string | null
  created_at: string
}

/** How a job, or all jobs of a workspace one after the other, are reached. */
export interface AccessTable {
  /** `w:` and the storage id of a workspace, or `j:` and the request id of a job without one. */
  owner: string
  visibility: Visibility
  ssh_port: number | null
  /** `ssh-ed25519 AAAA…` */
  ssh_public_key: string | null
  /** Sealed, see access/secret-key.ts. */
  ssh_private_key: string | null
  /** JSON array of further public keys that open it, without options and comments. */
  authorized_keys: string | null
  created_at: string
}

export interface SshKeysTable {
  id: string
  account_id: string
  name: string
  /** Type and key without options and comment. */
  public_key: string
  created_at: string
}

export interface Tables {
  access: AccessTable
  ssh_keys: SshKeysTable
  jobs: JobsTable
  job_definitions: JobDefinitionsTable
  job_templates: JobTemplatesTable
  job_template_revisions: JobTemplateRevisionsTable
  microvms: MicrovmsTable
  ip_leases: IpLeasesTable
  image_tasks: ImageTasksTable
  build_storages: BuildStoragesTable
  build_steps: BuildStepsTable
  files: FilesTable
  workspaces: WorkspacesTable
  url_aliases: UrlAliasesTable
  crons: CronsTable
  cron_runs: CronRunsTable
  tokens: TokensTable
  idempotency_keys: IdempotencyKeysTable
}
