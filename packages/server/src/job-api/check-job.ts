import { type CreateJobRequest, createJobRequest, type HostCapabilities, jobDefaults, leastMemoryMb, MagsError } from '@mags/protocol'
import { rangeError } from '../http/validate-range.ts'
import { checkIpLease } from '../ip-leases/check-ip-lease.ts'
import { checkIsolation, chooseImage, digestOf } from '../jobs/check-available.ts'
import type { Workspace } from '../workspaces/workspace.ts'
import { type JobDefinition, statefulScope } from './definition.ts'

/** Throws MagsError('out_of_range') naming the field and what this host has. */
export function checkSize(size: Pick<CreateJobRequest, 'vcpus' | 'memory_mb'> & Partial<Pick<CreateJobRequest, 'workspace_size_gb'>>, host: HostCapabilities) {
  checkBetween('vcpus', size.vcpus ?? Math.min(jobDefaults.vcpus, host.maxVcpus), 1, host.maxVcpus)
  checkBetween('memory_mb', size.memory_mb ?? jobDefaults.memoryMb, leastMemoryMb, host.maxMemoryMb)
  checkBetween('workspace_size_gb', size.workspace_size_gb ?? 1, 1, host.maxDiskGb)
}

/** Refuses what this server cannot do. Throws MagsError 'out_of_range', 'bad_request', 'not_available', naming the field. */
export function checkJob(members: Readonly<Record<string, unknown>>, host: HostCapabilities): void {
  const result = createJobRequest.safeParse(members)
  if (!result.success) throw rangeError(result.error)
  const request = result.data
  checkSize(request, host)
  if (request.workspace_id != null && request.stateful !== true)
    throw new MagsError('bad_request', 'workspace_id: needs stateful to be true; a job that is not stateful keeps nothing')
  checkIsolation(request.isolation ?? 'auto', host)
  const image = chooseImage({ image: request.image ?? undefined }, host)
  if (request.stateful) digestOf(image, host)
  if (request.ip_lease) checkIpLease(host)
}

/** Throws MagsError('bad_request') when a workspace that is there already is not one for this job: it keeps something else, or was made on another image than the job asks for. */
export function checkWorkspace({ fields }: Pick<JobDefinition, 'fields'>, workspace: Workspace | undefined): void {
  if (workspace === undefined) return
  const { workspaceId, scope, image } = workspace
  if (scope !== statefulScope)
    throw new MagsError(
      'bad_request',
      `workspace_id: workspace '${workspaceId}' keeps a whole file system, and a stateful job keeps ${statefulScope} only; use another one`,
    )
  if (fields.image != null && fields.image !== image)
    throw new MagsError(
      'bad_request',
      `image: workspace '${workspaceId}' was made on image ${image}; ask for that one, leave image out, or use another workspace`,
    )
}

/** Throws MagsError('out_of_range') when less is asked for than the workspace has already. */
export function checkWorkspaceSize({ fields }: Pick<JobDefinition, 'fields'>, workspace: Workspace | undefined): void {
  const sizeGb = fields.workspace_size_gb
  if (workspace === undefined || sizeGb == null || sizeGb >= workspace.diskGb) return
  throw new MagsError('out_of_range', `workspace_size_gb: workspace '${workspace.workspaceId}' has ${workspace.diskGb} GB, and a disk can only grow`)
}

function checkBetween(field: string, value: number, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return
  const range = `${min.toLocaleString('en-US')} to ${max.toLocaleString('en-US')}`
  throw new MagsError('out_of_range', `${field}: must be a whole number from ${range} on this server`)
}
