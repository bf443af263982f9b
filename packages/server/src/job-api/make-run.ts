import { createJobRequest, type HostCapabilities, jobDefaults } from '@mags/protocol'
import { rangeError } from '../http/validate-range.ts'
import { chooseImage } from '../jobs/check-available.ts'
import type { Job } from '../jobs/job.ts'
import { newJob } from '../jobs/new-job.ts'
import { defaultDiskGb } from '../workspaces/hold-workspaces.ts'
import type { Workspace } from '../workspaces/workspace.ts'
import { type JobDefinition, statefulScope } from './definition.ts'

export type Environment = Readonly<Record<string, string>>

/**
 * A run that was not stored yet. `workspace` is the one it is to have, if that is there already: it says what goes without saying, and its disk may have grown since. `now`: ms since 1970.
 * Throws MagsError('bad_request') when the image is not there any more.
 */
export function makeRun(definition: JobDefinition, overrides: Environment, workspace: Workspace | undefined, host: HostCapabilities, now: number): Job {
  const { accountId, name, script, fields, workspaceId } = definition
  const persistent = fields.persist ?? false
  const draft = {
    kind: 'job' as const,
    definitionId: definition.id,
    ...{ accountId, name, script, persistent },
    environment: { ...fields.environment, ...overrides },
    image: chooseImage({ image: fields.image ?? workspace?.image }, host),
    isolationWish: fields.isolation ?? 'auto',
    vcpus: fields.vcpus ?? Math.min(jobDefaults.vcpus, host.maxVcpus),
    memoryMb: fields.memory_mb ?? jobDefaults.memoryMb,
    port: fields.proxy_port ?? jobDefaults.proxyPort,
    timeoutSeconds: fields.timeout ?? (persistent ? null : jobDefaults.timeoutSeconds),
    maxRetries: fields.max_retries ?? jobDefaults.maxRetries,
    retryBackoffSeconds: fields.retry_backoff_seconds ?? jobDefaults.retryBackoffSeconds,
    priority: fields.priority ?? jobDefaults.priority,
    egress: fields.egress ?? null,
    ipLease: fields.ip_lease ?? false,
    ...(workspaceId === null
      ? { diskGb: defaultDiskGb }
      : {
          workspaceId,
          workspaceScope: statefulScope,
          diskGb: Math.max(fields.workspace_size_gb ?? (workspace ? 1 : jobDefaults.workspaceSizeGb), workspace?.diskGb ?? 1),
        }),
  }
  return newJob(draft, now)
}

/** Throws MagsError('out_of_range') when both together are over the limits of an environment. */
export function mergeEnvironment(own: Environment | null | undefined, overrides: Environment | null | undefined): Environment {
  const merged = createJobRequest.pick({ environment: true }).safeParse({ environment: { ...own, ...overrides } })
  if (!merged.success) throw rangeError(merged.error)
  return merged.data.environment ?? {}
}
