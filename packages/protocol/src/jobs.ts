import { z } from 'zod'
import { visibility } from './access.ts'
import { egressPolicy } from './egress.ts'
import { choice, content, environment, flag, integer, label, queryFlag, queryInteger, text } from './fields.ts'

/** Wire shapes of the Mags jobs API (snake_case). The server validates requests with them; the OpenAPI document is made of them. */

export const scriptLimitBytes = 1024 * 1024
export const bodyLimitBytes = 4 * 1024 * 1024

export const jobStatuses = ['pending', 'running', 'completed', 'error', 'sleeping', 'stopped'] as const
export type JobStatus = (typeof jobStatuses)[number]
/** How deep a job sleeps. */
export const sleepStages = ['frozen', 'hibernated', 'released'] as const
export type SleepStage = (typeof sleepStages)[number]
export const isFinal = (status: JobStatus): boolean => status === 'completed' || status === 'error' || status === 'stopped'

/** POST /mags-jobs. Members not named here are ignored and reported as warnings. */
export const submitJobRequest = z
  .object({
    script: content(scriptLimitBytes, '1 MiB')
      .refine((value) => value.trim() !== '', 'must not be empty')
      .describe('Shell script, run by /bin/sh as root in /root; with type "url" its address.'),
    type: choice(['inline', 'url']).default('inline'),
    name: label().optional().describe('Default mags-job-<unix seconds>.'),
    workspace_id: label().nullish().describe('Workspace restored before and saved after the job; made when there is none. One job at a time.'),
    base_workspace_id: label().nullish().describe('Workspace to start from, which is not changed; with workspace_id a fork of it.'),
    persistent: flag().default(false).describe('Keep the sandbox after the script.'),
    startup_command: text(64 * 1024, '64 KiB')
      .nullish()
      .describe('Run when a sleeping sandbox wakes and its processes are gone.'),
    environment: environment().default({}),
    file_ids: z
      .array(z.string('must be a string').max(64, 'must be a file id'), 'must be a list of file ids')
      .max(1000, 'at most 1,000 files')
      .default([])
      .describe('Uploaded files, put into /root before the script starts.'),
    timeout: integer(1, 86_400 * 30)
      .nullish()
      .describe('Seconds the script may run; 300 unless persistent.'),
    no_sleep: flag().default(false).describe('Never put to sleep; needs persistent.'),
    disk_gb: integer(1, 1_000_000).optional().describe('Default 2, or what the workspace has; a larger one grows the workspace.'),
    vcpus: integer(1, 100_000).optional().describe('Default 1.'),
    memory_mb: integer(64, 100_000_000).optional().describe('Default 512.'),
    image: text(200).optional().describe('Default: the image of the server.'),
    rootfs_type: text(200).optional().describe('Alias of image.'),
    isolation: choice(['auto', 'vm', 'container']).default('auto'),
    port: integer(1, 65_535).default(8080).describe('Port that the URL reaches.'),
    egress: egressPolicy().nullish(),
  })
  .meta({ title: 'SubmitJobRequest' })
export type SubmitJobRequest = z.output<typeof submitJobRequest>

export const submitJobAnswer = z.object({
  request_id: z.string(),
  status: z.literal('accepted'),
  message: z.string(),
  warnings: z.array(z.string()).optional(),
})
export type SubmitJobAnswer = z.output<typeof submitJobAnswer>

const milliseconds = () => z.number().nullable()

export const jobStatusAnswer = z.object({
  request_id: z.string(),
  name: z.string(),
  status: z.enum(jobStatuses),
  vm_id: z.string().nullable().describe('Twelve lower-case hex digits, once a sandbox was taken.'),
  persistent: z.boolean(),
  subdomain: z.string(),
  url: z.string().nullable(),
  sleeping: z.boolean(),
  exit_code: z.number().nullable(),
  queue_duration_ms: milliseconds().describe('Accepted until handed to the host.'),
  acquire_duration_ms: milliseconds().describe('Until a sandbox was taken.'),
  attach_duration_ms: milliseconds().describe('Until that was stored and the script started in it.'),
  first_byte_duration_ms: milliseconds().describe('Until its first output was stored, or it ended without any.'),
  start_duration_ms: milliseconds().describe('The sum of the four before.'),
  script_duration_ms: milliseconds().describe('Start of the script until its end.'),
  warm: z.boolean().nullable().describe('Whether a warm sandbox was there at once, or one was made for it; null until one was taken.'),
  created_at: z.string(),
  started_at: z.string().nullable(),
  completed_at: z.string().nullable(),
  workspace_id: z.string().nullable(),
  base_workspace_id: z.string().nullable(),
  workspace_version: z.number().nullable().describe('The newest version the job began with or saved.'),
  synced_at: z.string().nullable().describe('When its workspace was last known to be in the object store.'),
  workspace_unsaved_since: z.string().nullable().describe('When saving its workspace began to fail; null while all is well.'),
  workspace_size_bytes: z.number().nullable(),
  workspace_bytes_uploaded: z.number().nullable().describe('In all saves of this job.'),
  image: z.string(),
  isolation: z.enum(['kvm', 'emulated-vm', 'container']).nullable().describe('The wall it got; null until a sandbox was taken.'),
  vcpus: z.number(),
  memory_mb: z.number(),
  disk_gb: z.number(),
  port: z.number(),
  visibility: z.enum(['public', 'token']).describe('Who may see its URL: everybody, or who has a token of the account.'),
  no_sleep: z.boolean(),
  startup_command: z.string().nullable(),
  sleep_stage: z
    .enum(sleepStages)
    .nullable()
    .describe('While it sleeps: memory is kept (frozen), on disk (hibernated), or it wakes from its workspace (released).'),
  slept_at: z.string().nullable().describe('When it was put to sleep last.'),
  woken_at: z.string().nullable(),
  wake_reason: z.string().nullable().describe('What woke it last: http, ssh, exec, files, request.'),
  wake_duration_ms: milliseconds(),
  egress: z
    .union([z.literal('none'), z.object({ allow: z.array(z.string()).optional(), deny: z.array(z.string()).optional() })])
    .nullable()
    .describe('What it may reach; null: all that the server allows.'),
  egress_bytes: z.number().nullable().describe('Bytes it sent to anywhere outside, as far as counted.'),
  forked_from: z.string().nullable().describe('Request id of the job whose sandbox its own began as a copy of.'),
  error: z.string().nullable(),
})
export type JobStatusAnswer = z.output<typeof jobStatusAnswer>

export const jobSummary = z.object({
  request_id: z.string(),
  job_id: z.string(),
  name: z.string(),
  status: z.enum(jobStatuses),
  workspace_id: z.string().nullable(),
  exit_code: z.number().nullable(),
  created_at: z.string(),
})
export type JobSummary = z.output<typeof jobSummary>

export const listJobsQuery = z.strictObject({
  page: queryInteger(1, 1_000_000).default(1),
  page_size: queryInteger(1, 100).default(20),
  status: choice(jobStatuses).optional(),
  workspace_id: z.string().optional(),
})
export const listJobsAnswer = z.object({ jobs: z.array(jobSummary), total: z.number(), page: z.number(), page_size: z.number() })
export type ListJobsAnswer = z.output<typeof listJobsAnswer>

export const jobParams = z.object({
  id: z.string().describe('The request id, or the name or workspace of a job: the newest that is not over, else the newest.'),
})

export const updateJobRequest = z.strictObject({
  startup_command: text(64 * 1024, '64 KiB')
    .nullable()
    .optional(),
  no_sleep: flag().optional(),
  port: integer(1, 65_535).optional().describe('Port that the URL reaches.'),
  visibility: visibility().optional(),
  egress: egressPolicy().nullable().optional().describe('In force at once, for connections that exist, too; null: all that the server allows.'),
})
export type UpdateJobRequest = z.output<typeof updateJobRequest>

/** Stop and update. */
export const doneAnswer = z.object({ success: z.boolean(), message: z.string() })

export const execRequest = z.strictObject({
  command: text(128 * 1024 - 1, '128 KiB')
    .refine((value) => value.trim() !== '', 'must not be blank')
    .describe('Run by /bin/sh -c.'),
  timeout_seconds: integer(1, 86_400).default(30),
  stdin: content(scriptLimitBytes, '1 MiB').optional(),
  environment: environment().default({}),
  cwd: text(4096)
    .refine((value) => value.startsWith('/'), 'must be an absolute path')
    .optional(),
})
export type ExecJobRequest = z.output<typeof execRequest>
export const execQuery = z.strictObject({ stream: queryFlag().default(false) })

export const execAnswer = z.object({
  exit_code: z.number().describe('124 after the timeout.'),
  stdout: z.string(),
  stderr: z.string(),
  duration_ms: z.number(),
  truncated: z.boolean().describe('Whether output over 1 MiB of a stream was dropped.'),
})
export type ExecAnswer = z.output<typeof execAnswer>

export const logRow = z.object({
  timestamp: z.string(),
  level: z.enum(['info', 'error']),
  message: z.string(),
  source: z.enum(['stdout', 'stderr', 'system']),
  partial: z.literal(true).optional().describe('The row does not end with a new line.'),
  base64: z.string().optional().describe('The true bytes, when they are not UTF-8.'),
})
export type LogRow = z.output<typeof logRow>

export const logsQuery = z.strictObject({
  source: choice(['stdout', 'stderr', 'system']).optional(),
  after: z.string().max(64, 'must be a cursor of this job').optional(),
  limit: queryInteger(1, 10_000).default(1000),
  follow: queryFlag().default(false),
})
export const logsAnswer = z.object({ logs: z.array(logRow), next: z.string().describe('Cursor for after.') })
export type LogsAnswer = z.output<typeof logsAnswer>

export const poolStatusAnswer = z.object({
  idle_vms: z.number(),
  busy_vms: z.number(),
  total_vms: z.number(),
  min_pool_size: z.number(),
  max_pool_size: z.number(),
  sleeping_vms: z.number(),
  isolation: z.enum(['kvm', 'emulated-vm', 'container']),
  hit_rate: z.number(),
  last_failure: z.string().nullable(),
})
export type PoolStatusAnswer = z.output<typeof poolStatusAnswer>

export const healthAnswer = z.object({ status: z.literal('ok'), version: z.string(), isolation: z.enum(['kvm', 'emulated-vm', 'container']) })
export type HealthAnswer = z.output<typeof healthAnswer>

export const errorAnswer = z.object({ error: z.string(), code: z.string(), details: z.record(z.string(), z.unknown()).optional() })
export type ErrorAnswer = z.output<typeof errorAnswer>
