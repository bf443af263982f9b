import { type JobAnswer, type JobDetailsAnswer, type JobRunAnswer, jobDefaults, runStatuses, runStatusOf } from '@mags/protocol'
import type { Job } from '../jobs/job.ts'
import type { JobDefinition } from './definition.ts'
import { durationOfRun, endOfRun } from './end-of-run.ts'
import type { RunSummary } from './store.ts'

/** What is not in the rows. */
export interface Present {
  /** Name of this machine. */
  readonly hostName: string
  /** Cores of this machine that a job may have at most. */
  readonly maxVcpus: number
  /** ms since 1970. */
  readonly now: number
}

/** A job of the Jobs API as the API gives it. */
export function presentDefinition(definition: JobDefinition, lastRun: RunSummary | undefined, present: Present): JobAnswer {
  const { fields, workspaceId } = definition
  const persist = fields.persist ?? false
  return {
    id: definition.id,
    name: definition.name,
    description: definition.description,
    script_type: 'inline',
    script: definition.script,
    vcpus: fields.vcpus ?? Math.min(jobDefaults.vcpus, present.maxVcpus),
    memory_mb: fields.memory_mb ?? jobDefaults.memoryMb,
    environment: fields.environment ?? {},
    stateful: workspaceId !== null,
    workspace_id: workspaceId,
    workspace_size_gb: workspaceId === null ? null : (fields.workspace_size_gb ?? jobDefaults.workspaceSizeGb),
    persist,
    ip_lease: fields.ip_lease ?? false,
    proxy_port: fields.proxy_port ?? jobDefaults.proxyPort,
    image: fields.image ?? null,
    isolation: fields.isolation ?? 'auto',
    timeout: fields.timeout ?? (persist ? null : jobDefaults.timeoutSeconds),
    max_retries: fields.max_retries ?? jobDefaults.maxRetries,
    retry_backoff_seconds: fields.retry_backoff_seconds ?? jobDefaults.retryBackoffSeconds,
    priority: fields.priority ?? jobDefaults.priority,
    egress: fields.egress ?? null,
    template_id: definition.templateId,
    template_revision: definition.templateRevision,
    created_at: definition.createdAt,
    updated_at: definition.updatedAt,
    user_id: definition.userId,
    last_run: lastRun === undefined ? null : presentRun(lastRun, present),
  }
}

export function presentRun(run: RunSummary, { hostName, now }: Pick<Present, 'hostName' | 'now'>): JobRunAnswer {
  return {
    id: run.requestId,
    request_id: run.requestId,
    job_id: run.definitionId ?? run.requestId,
    job_name: run.name,
    status: runStatusOf(run),
    created_at: run.createdAt,
    started_at: run.startedAt,
    completed_at: endOfRun(run),
    duration_ms: durationOfRun(run, now),
    exit_code: run.exitCode,
    error: run.error,
    agent_id: run.vmId === null ? null : hostName,
    attempt: run.attempt,
    max_retries: run.maxRetries,
  }
}

/** How many there are of each status. */
export function sumRuns(counts: readonly (Pick<Job, 'status' | 'persistent' | 'exitCode'> & { readonly count: number })[]): JobDetailsAnswer['runs'] {
  const sums = { total: 0, ...(Object.fromEntries(runStatuses.map((status) => [status, 0])) as Record<(typeof runStatuses)[number], number>) }
  for (const { count, ...run } of counts) {
    sums.total += count
    sums[runStatusOf(run)] += count
  }
  return sums
}
