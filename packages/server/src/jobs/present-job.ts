import type { EgressPolicy, JobStatusAnswer, Visibility } from '@mags/protocol'
import type { Workspace } from '../workspaces/workspace.ts'
import { type Job, type JobTimings, subdomainOf } from './job.ts'

/** What the row of a job does not have. */
export interface JobSurroundings {
  /** The address whose subdomains are jobs. */
  readonly appsUrl: string | undefined
  /** Timings of a job that is under way, ahead of what is stored. */
  readonly live: JobTimings | undefined
  readonly workspace: Workspace | undefined
  readonly visibility: Visibility
  /** Why it stands still, if it does. */
  readonly trouble: string | undefined
}

/** A job as the status route gives it. */
export function presentJob(job: Job, { appsUrl, live, workspace, visibility, trouble }: JobSurroundings): JobStatusAnswer {
  const timings = live?.queueMs == null ? job.timings : live
  return {
    request_id: job.requestId,
    name: job.name,
    status: job.status,
    vm_id: job.vmId,
    persistent: job.persistent,
    subdomain: subdomainOf(job),
    url: appsUrl === undefined ? null : urlOf(job, appsUrl),
    sleeping: job.status === 'sleeping',
    exit_code: job.exitCode,
    queue_duration_ms: timings.queueMs,
    acquire_duration_ms: timings.acquireMs,
    attach_duration_ms: timings.attachMs,
    first_byte_duration_ms: timings.firstByteMs,
    start_duration_ms: timings.startMs,
    script_duration_ms: timings.scriptMs,
    warm: job.warm,
    created_at: job.createdAt,
    started_at: job.startedAt,
    completed_at: job.completedAt,
    workspace_id: job.workspaceId,
    base_workspace_id: job.baseWorkspaceId,
    workspace_version: job.workspaceVersion,
    synced_at: job.workspaceSyncedAt,
    workspace_unsaved_since: workspace?.unsavedSince ?? null,
    workspace_size_bytes: job.workspaceSizeBytes,
    workspace_bytes_uploaded: job.workspaceId === null ? null : (job.workspaceUploadedBytes ?? 0),
    image: job.image,
    isolation: job.isolation,
    vcpus: job.vcpus,
    memory_mb: job.memoryMb,
    disk_gb: job.diskGb,
    port: job.port,
    visibility,
    no_sleep: job.noSleep,
    startup_command: job.startupCommand,
    sleep_stage: job.sleepStage,
    slept_at: job.sleptAt,
    woken_at: job.wokenAt,
    wake_reason: job.wakeReason,
    wake_duration_ms: job.wakeMs,
    egress: job.egress === null ? null : presentEgress(job.egress),
    egress_bytes: job.egressBytes,
    forked_from: job.forkedFrom,
    error: job.error ?? trouble ?? null,
  }
}

/** The URL of a job. */
export function urlOf(job: Job, appsUrl: string): string {
  const url = new URL(appsUrl)
  return `${url.protocol}//${subdomainOf(job)}.${url.host}`
}

function presentEgress(policy: EgressPolicy): JobStatusAnswer['egress'] {
  if (policy === 'none') return policy
  const { allow, deny } = policy
  return { ...(allow === undefined ? {} : { allow: [...allow] }), ...(deny === undefined ? {} : { deny: [...deny] }) }
}
