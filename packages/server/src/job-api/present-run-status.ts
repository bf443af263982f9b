import { isFinal, type RunStatusAnswer, runStatusOf, type VmInfoAnswer } from '@mags/protocol'
import type { Job, JobTimings } from '../jobs/job.ts'
import { urlOf } from '../jobs/present-job.ts'
import { durationOfRun, endOfRun } from './end-of-run.ts'

/** What the row of a run does not have. */
export interface RunSurroundings {
  /** The address whose subdomains are jobs. */
  readonly appsUrl: string | undefined
  /** Timings of a run that is under way, ahead of what is stored. */
  readonly live: JobTimings | undefined
  /** Why it stands still, if it does. */
  readonly trouble: string | undefined
  /** Last lines of its output. */
  readonly lines: readonly string[]
  /** Name of this machine. */
  readonly hostName: string
  /** ms since 1970. */
  readonly now: number
}

export function presentRunStatus(run: Job, { appsUrl, live, trouble, lines, hostName, now }: RunSurroundings): RunStatusAnswer {
  const timings = live?.queueMs == null ? run.timings : live
  const times = { ...run, timings }
  const vmInfo = presentVmInfo(run, hostName)
  return {
    request_id: run.requestId,
    job_id: run.definitionId ?? run.requestId,
    name: run.name,
    status: runStatusOf(run),
    logs: [...lines],
    duration: durationOfRun(times, now),
    script_duration_ms: timings.scriptMs,
    exit_code: run.exitCode,
    created_at: run.createdAt,
    started_at: run.startedAt,
    completed_at: endOfRun(times),
    error_message: run.error ?? trouble ?? null,
    vm_info: run.vmId === null ? null : vmInfo,
    persist: run.persistent,
    ipv6_address: vmInfo.ipv6_address === '' ? null : vmInfo.ipv6_address,
    proxy_url: appsUrl === undefined || !run.persistent || !hasUrl(run) ? null : urlOf(run, appsUrl),
    workspace_id: run.workspaceId,
    sleeping: run.status === 'sleeping',
    image: run.image,
    isolation: run.isolation,
    vcpus: run.vcpus,
    memory_mb: run.memoryMb,
    warm: run.warm,
    attempt: run.attempt,
    max_retries: run.maxRetries,
    retry_at: run.status === 'pending' && run.attempt > 1 ? run.notBefore : null,
    queue_duration_ms: timings.queueMs,
    acquire_duration_ms: timings.acquireMs,
    attach_duration_ms: timings.attachMs,
    first_byte_duration_ms: timings.firstByteMs,
    start_duration_ms: timings.startMs,
  }
}

/** Addresses are there as long as they are leased. */
export function presentVmInfo(run: Job, hostName: string): VmInfoAnswer {
  const [ipv4, ipv6] = isFinal(run.status) ? [null, null] : [run.ipv4Address, run.ipv6Address]
  return {
    vm_id: run.vmId,
    agent_id: run.vmId === null ? null : hostName,
    ip_address: ipv4 ?? ipv6 ?? '',
    ipv4_address: ipv4 ?? '',
    ipv6_address: ipv6 ?? '',
  }
}

/** The URL of one with a workspace begins with what that is called in the store, which is known once it has it. */
const hasUrl = (run: Job) => run.workspaceId === null || run.workspaceStorageId !== null
