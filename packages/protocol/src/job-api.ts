import { z } from 'zod'
import { egressPolicy } from './egress.ts'
import { choice, content, environment, flag, integer, label, queryInteger, text, title } from './fields.ts'
import { type JobStatus, scriptLimitBytes } from './jobs.ts'

/**
 * Wire shapes of the Jobs API and of templates (snake_case). What has a default may be null in a request, which is that default. The rules of names, scripts, numbers and choices are
 * answered with 422, a member that is missing or has another JSON type with 400.
 */

export const runStatuses = ['not_started', 'in_progress', 'completed', 'failed', 'cancelled', 'error'] as const
/** Status words of the Jobs API. */
export type RunStatus = (typeof runStatuses)[number]

/** Whether there is nothing to wait for any more: a persistent job is there too once its script has ended, though its sandbox lives on. */
export const isRunOver = (status: RunStatus): boolean => status !== 'not_started' && status !== 'in_progress'

/** What the Jobs API calls the status of a run. */
export function runStatusOf(run: { readonly status: JobStatus; readonly exitCode: number | null; readonly persistent: boolean }): RunStatus {
  const { status, exitCode, persistent } = run
  if (status === 'pending') return 'not_started'
  if (status === 'stopped') return 'cancelled'
  if (status === 'completed') return 'completed'
  if (status === 'error') return exitCode === null ? 'error' : 'failed'
  if (!persistent || exitCode === null) return 'in_progress'
  return exitCode === 0 ? 'completed' : 'failed'
}

/** What a job is made with where its request does not say. `timeoutSeconds` is for jobs that are not persistent; those have none. */
export const jobDefaults = {
  vcpus: 2,
  memoryMb: 512,
  proxyPort: 8080,
  workspaceSizeGb: 10,
  timeoutSeconds: 3600,
  maxRetries: 0,
  retryBackoffSeconds: 5,
  priority: 0,
} as const

/** A sandbox below cannot be relied on to start. */
export const leastMemoryMb = 128

const shellScript = () =>
  content(scriptLimitBytes, '1 MiB')
    .refine((value) => value.trim() !== '', 'must not be blank')
    .describe('Shell script, run by /bin/sh as root in /root.')
const description = () => text(16 * 1024, '16 KiB').nullish()
/** A number whose bounds are the host's: those are checked where they are known. */
const size = (minimum: number) =>
  z
    .number({ error: (issue) => (issue.input === undefined ? 'is required' : 'must be a number') })
    .meta({ type: 'integer', minimum })
    .nullish()

const sizes = {
  vcpus: size(1).describe(`Default ${jobDefaults.vcpus}.`),
  memory_mb: size(leastMemoryMb).describe(`Default ${jobDefaults.memoryMb}.`),
}
const scriptType = () => choice(['inline']).nullish()

const jobFields = {
  description: description(),
  type: scriptType().describe('Default inline: the script is in the request.'),
  script_type: scriptType().describe('Another name of type.'),
  ...sizes,
  environment: environment().nullish(),
  stateful: flag().nullish().describe('Keep /workspace from run to run; runs on one workspace wait for each other.'),
  workspace_id: label().nullish().describe('Name of the workspace of a stateful job; default the id of the job.'),
  workspace_size_gb: size(1).describe(`Disk of the workspace; default ${jobDefaults.workspaceSizeGb}.`),
  persist: flag().nullish().describe('Keep the sandbox after the script, with a URL.'),
  ip_lease: flag().nullish().describe('An address of its own, out of the prefixes of the server.'),
  proxy_port: integer(1, 65_535).nullish().describe(`Port that the URL reaches; default ${jobDefaults.proxyPort}.`),
  image: text(200).nullish().describe('Default: the image of the server.'),
  isolation: choice(['auto', 'vm', 'container']).nullish().describe('Default auto.'),
  timeout: integer(1, 86_400 * 30)
    .nullish()
    .describe(`Seconds that a try of the script may take; default ${jobDefaults.timeoutSeconds.toLocaleString('en-US')}, none with persist.`),
  max_retries: integer(0, 10).nullish().describe('Further tries after the script failed, timed out or its sandbox was lost; default 0.'),
  retry_backoff_seconds: integer(1, 3600)
    .nullish()
    .describe(`Before the first further try, twice as long before each next one; default ${jobDefaults.retryBackoffSeconds}.`),
  priority: integer(-100, 100).nullish().describe('Of the waiting jobs of an account those with the highest start first; default 0.'),
  egress: egressPolicy().nullish(),
}

/** POST /jobs. Members not named here are ignored and reported as warnings. */
export const createJobRequest = z.object({ name: title(), script: shellScript(), ...jobFields }).meta({ title: 'CreateJobRequest' })
export type CreateJobRequest = z.output<typeof createJobRequest>

/** PUT /jobs/:id: what is there changes, for later runs; null goes back to the default. Other members are ignored and reported as warnings. */
export const changeJobRequest = z
  .object({ name: title().optional(), script: shellScript().optional(), ...jobFields })
  .meta({ title: 'ChangeJobRequest', description: 'Members of a create that change, for later runs; null goes back to the default.' })
export type ChangeJobRequest = z.output<typeof changeJobRequest>

const warnings = () => z.array(z.string()).optional()

export const createJobAnswer = z.object({
  request_id: z.string().describe('Of the first run, and the id of the job.'),
  status: z.literal('accepted'),
  message: z.string(),
  warnings: warnings(),
})
export type CreateJobAnswer = z.output<typeof createJobAnswer>

const time = () => z.string().nullable()

/** One run of a job. */
export const jobRunAnswer = z
  .object({
    id: z.string().describe('Request id of the run.'),
    request_id: z.string().describe('The same.'),
    job_id: z.string(),
    job_name: z.string(),
    status: z.enum(runStatuses),
    created_at: z.string(),
    started_at: time(),
    completed_at: time(),
    duration_ms: z.number().nullable().describe('From its start to its end, or until now.'),
    exit_code: z.number().nullable(),
    error: z.string().nullable(),
    agent_id: z.string().nullable().describe('Name of the machine it runs on, once it has a sandbox.'),
    attempt: z.number().describe('Which try it is, from 1.'),
    max_retries: z.number(),
  })
  .meta({ title: 'JobRun' })
export type JobRunAnswer = z.output<typeof jobRunAnswer>

export const jobAnswer = z
  .object({
    id: z.string(),
    name: z.string(),
    description: z.string().nullable(),
    script_type: z.literal('inline'),
    script: z.string(),
    vcpus: z.number(),
    memory_mb: z.number(),
    environment: z.record(z.string(), z.string()),
    stateful: z.boolean(),
    workspace_id: z.string().nullable().describe('null unless it is stateful.'),
    workspace_size_gb: z.number().nullable(),
    persist: z.boolean(),
    ip_lease: z.boolean(),
    proxy_port: z.number(),
    image: z.string().nullable().describe('null: the one of the server.'),
    isolation: z.enum(['auto', 'vm', 'container']),
    timeout: z.number().nullable(),
    max_retries: z.number(),
    retry_backoff_seconds: z.number(),
    priority: z.number(),
    egress: z.union([z.literal('none'), z.object({ allow: z.array(z.string()).optional(), deny: z.array(z.string()).optional() })]).nullable(),
    template_id: z.string().nullable(),
    template_revision: z.number().nullable(),
    created_at: z.string(),
    updated_at: z.string(),
    user_id: z.string().describe('Id of the token it was made with.'),
    last_run: jobRunAnswer.nullable().describe('The newest.'),
    warnings: warnings().describe('After a change.'),
  })
  .meta({ title: 'Job' })
export type JobAnswer = z.output<typeof jobAnswer>

export const jobDetailsAnswer = jobAnswer
  .extend({ runs: z.record(z.enum(['total', ...runStatuses]), z.number()).describe('How many there have been, in all and by status.') })
  .meta({ title: 'JobDetails' })
export type JobDetailsAnswer = z.output<typeof jobDetailsAnswer>

export const jobIdParams = z.object({
  id: z.string().describe('Id of a run; or id, name or workspace of a job: where a run is asked for its newest that is not over, else its newest.'),
})

const paging = { page: queryInteger(1, 1_000_000).default(1), page_size: queryInteger(1, 100).default(20) }
const paged = { total: z.number(), page: z.number(), page_size: z.number() }

export const listJobDefinitionsQuery = z.strictObject({ ...paging, template_id: z.string().optional() })
export const listJobDefinitionsAnswer = z.object({ jobs: z.array(jobAnswer), ...paged })
export type ListJobDefinitionsAnswer = z.output<typeof listJobDefinitionsAnswer>

export const listJobRunsQuery = z.strictObject(paging)
export const listJobRunsAnswer = z.object({ runs: z.array(jobRunAnswer), ...paged })
export type ListJobRunsAnswer = z.output<typeof listJobRunsAnswer>

/** POST /jobs/:id/run and /job-templates/:id/run. */
export const runJobRequest = z
  .strictObject({ environment: environment().nullish().describe('Overrides: merged over the environment of the job or template, for this run.') })
  .meta({ title: 'RunJobRequest' })
export type RunJobRequest = z.output<typeof runJobRequest>

export const cancelJobAnswer = z.object({ success: z.boolean(), message: z.string(), status: z.enum(runStatuses) })
export type CancelJobAnswer = z.output<typeof cancelJobAnswer>

/** GET /jobs/:id/vm-info. */
export const vmInfoAnswer = z
  .object({
    vm_id: z.string().nullable(),
    agent_id: z.string().nullable(),
    ip_address: z.string().describe('The IPv4 one if there is one, else the IPv6 one; empty without ip_lease.'),
    ipv4_address: z.string(),
    ipv6_address: z.string(),
  })
  .meta({ title: 'VmInfo' })
export type VmInfoAnswer = z.output<typeof vmInfoAnswer>

const milliseconds = () => z.number().nullable()

/** GET /jobs/:id/status. */
export const runStatusAnswer = z
  .object({
    request_id: z.string(),
    job_id: z.string(),
    name: z.string(),
    status: z.enum(runStatuses),
    logs: z.array(z.string()).describe('The last lines of output: at most 1,000, and 256 KiB.'),
    duration: milliseconds().describe('Milliseconds from its start to its end, or until now.'),
    script_duration_ms: milliseconds(),
    exit_code: z.number().nullable(),
    created_at: z.string(),
    started_at: time(),
    completed_at: time(),
    error_message: z.string().nullable(),
    vm_info: vmInfoAnswer.nullable().describe('null until it has a sandbox.'),
    persist: z.boolean(),
    ipv6_address: z.string().nullable(),
    proxy_url: z.string().nullable().describe('null unless it is persistent.'),
    workspace_id: z.string().nullable(),
    sleeping: z.boolean(),
    image: z.string(),
    isolation: z.enum(['kvm', 'emulated-vm', 'container']).nullable(),
    vcpus: z.number(),
    memory_mb: z.number(),
    warm: z.boolean().nullable().describe('Whether a warm sandbox was there for it.'),
    attempt: z.number().describe('Which try it is, from 1.'),
    max_retries: z.number(),
    retry_at: time().describe('When the next try begins, while it waits for it.'),
    queue_duration_ms: milliseconds(),
    acquire_duration_ms: milliseconds(),
    attach_duration_ms: milliseconds(),
    first_byte_duration_ms: milliseconds(),
    start_duration_ms: milliseconds().describe('The sum of the four before.'),
  })
  .meta({ title: 'JobRunStatus' })
export type RunStatusAnswer = z.output<typeof runStatusAnswer>

/** POST /jobs/:id/ssh: one command in a job that runs. */
export const jobSshRequest = z
  .strictObject({
    command: text(128 * 1024 - 1, '128 KiB')
      .refine((value) => value.trim() !== '', 'must not be blank')
      .describe('Run by /bin/sh -c.'),
    timeout_seconds: integer(1, 86_400).nullish().describe('Default 30.'),
  })
  .meta({ title: 'JobSshRequest' })
export type JobSshRequest = z.output<typeof jobSshRequest>

export const templateRevisionAnswer = z
  .object({
    id: z.string(),
    template_id: z.string(),
    revision: z.number().describe('From 1 up.'),
    script: z.string(),
    environment: z.record(z.string(), z.string()),
    comment: z.string().nullable(),
    created_at: z.string(),
    created_by: z.string().describe('Id of the token it was made with.'),
  })
  .meta({ title: 'JobTemplateRevision' })
export type TemplateRevisionAnswer = z.output<typeof templateRevisionAnswer>

export const templateAnswer = z
  .object({
    id: z.string(),
    name: z.string(),
    description: z.string().nullable(),
    script_type: z.literal('inline'),
    default_vcpus: z.number(),
    default_memory_mb: z.number(),
    latest_revision: templateRevisionAnswer,
    created_at: z.string(),
    updated_at: z.string(),
    user_id: z.string().describe('Id of the token it was made with.'),
    warnings: warnings().describe('After a create or a change.'),
  })
  .meta({ title: 'JobTemplate' })
export type TemplateAnswer = z.output<typeof templateAnswer>

const templateFields = {
  description: description(),
  script_type: scriptType().describe('Default inline.'),
  ...sizes,
  environment: environment().nullish(),
  comment: text(16 * 1024, '16 KiB')
    .nullish()
    .describe('Of the revision that this makes.'),
}

/** POST /job-templates. Members not named here are ignored and reported as warnings. */
export const createTemplateRequest = z.object({ name: title(), script: shellScript(), ...templateFields }).meta({ title: 'CreateJobTemplateRequest' })
export type CreateTemplateRequest = z.output<typeof createTemplateRequest>

/** PUT /job-templates/:id: what is there changes, null goes back to the default; the rest stays. Always a new revision. */
export const changeTemplateRequest = z
  .object({ name: title().optional(), script: shellScript().optional(), ...templateFields })
  .meta({ title: 'ChangeJobTemplateRequest', description: 'Members of a create that change; null goes back to the default. Makes a new revision.' })
export type ChangeTemplateRequest = z.output<typeof changeTemplateRequest>

export const templateParams = z.object({ id: z.string().describe('Id of a template; or its name, the newest of that name.') })

export const listTemplatesQuery = z.strictObject(paging)
export const listTemplatesAnswer = z.object({ templates: z.array(templateAnswer), ...paged })
export type ListTemplatesAnswer = z.output<typeof listTemplatesAnswer>

export const listTemplateRevisionsQuery = z.strictObject(paging)
export const listTemplateRevisionsAnswer = z.object({ revisions: z.array(templateRevisionAnswer), ...paged })
export type ListTemplateRevisionsAnswer = z.output<typeof listTemplateRevisionsAnswer>
