import type { JobStatusAnswer } from '@mags/protocol'
import type { Workspace } from '../workspaces/workspace.ts'
import type { Job, JobTimings } from './job.ts'

/** A job as the status route gives it. `appsUrl` is the address whose subdomains are jobs; `live` are the timings of a job that is under way, ahead of what is stored. `workspace` is the one it has. */
export function presentJob(job: Job, appsUrl: string | undefined, live: JobTimings | undefined, workspace?: Workspace): JobStatusAnswer {
  const timings = live?.queueMs == null ? job.timings : live
  return {
    request_id: job.requestId,
    name: job.name,
    status: job.status,
    vm_id: job.vmId,
    persistent: job.persistent,
    subdomain: job.subdomain,
    url: appsUrl === undefined ? null : urlOf(job, appsUrl),
    sleeping: job.status === 'sleeping',
    exit_code: job.exitCode,
    queue_duration_ms: timings.queueMs,
    acquire_duration_ms: timings.acquireMs,
    attach_duration_ms: timings.attachMs,
    first_byte_duration_ms: timings.firstByteMs,
    start_duration_ms: timings.startMs,
    script_duration_ms: timings.scriptMs,
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
    no_sleep: job.noSleep,
    startup_command: job.startupCommand,
    error: job.error,
  }
}

function urlOf(job: Job, appsUrl: string): string {
  const url = new URL(appsUrl)
  return `${url.protocol}//${job.subdomain}.${url.host}`
}
