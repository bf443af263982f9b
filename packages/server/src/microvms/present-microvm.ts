import { isFinal, type MicrovmAnswer } from '@mags/protocol'
import type { Job } from '../jobs/job.ts'
import { urlOf } from '../jobs/present-job.ts'
import { type Microvm, statusOf } from './microvm.ts'

/** What the row of a microVM does not have. */
export interface MicrovmSurroundings {
  /** Its newest. */
  readonly job: Job | undefined
  /** Whether its machine is up, as far as this server knows. */
  readonly isUp: boolean | undefined
  /** Why its machine stands still, if it does. */
  readonly trouble?: string | undefined
  /** The address whose subdomains are jobs. */
  readonly appsUrl: string | undefined
  readonly sshPort: number | null
}

/** A microVM as the API gives it. */
export function presentMicrovm(microvm: Microvm, { job, isUp, trouble, appsUrl, sshPort }: MicrovmSurroundings): MicrovmAnswer {
  const status = statusOf(microvm, job, isUp ?? (job?.timings.attachMs ?? null) !== null)
  const addresses = job !== undefined && !isFinal(job.status) ? job : undefined
  // What went wrong when it was saved last is its error, too.
  const error = microvm.error ?? (status === 'stopped' ? job?.error : trouble) ?? null
  return {
    id: microvm.id,
    name: microvm.name,
    status,
    cpu: microvm.cpu,
    memory: microvm.memoryMb,
    disk: job?.diskGb ?? microvm.diskGb,
    image: microvm.image,
    ip_address: addresses?.ipv4Address ?? '',
    ipv6_address: addresses?.ipv6Address ?? '',
    created_at: microvm.createdAt,
    isolation: job?.isolation ?? null,
    init: microvm.init,
    url: job === undefined || appsUrl === undefined ? null : urlOf(job, appsUrl),
    port: job?.port ?? microvm.port,
    error,
    ssh_port: sshPort,
    key_generated: microvm.keyGenerated,
    ip_lease: microvm.ipLease,
    started_at: job?.startedAt ?? null,
    request_id: job?.requestId ?? null,
    image_digest: microvm.imageDigest,
    workspace_id: microvm.workspaceId,
  }
}
