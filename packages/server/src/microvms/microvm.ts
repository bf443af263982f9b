import { isFinal, type MicrovmStatus } from '@mags/protocol'
import type { Job } from '../jobs/job.ts'
import { newJob } from '../jobs/new-job.ts'

/** A machine that lasts: a disk (its workspace) with SSH port, keys and URL, and one job after the other that runs it. */
export interface Microvm {
  readonly id: string
  readonly accountId: string
  /** Unique in the account. */
  readonly name: string
  readonly wish: 'running' | 'stopped' | 'deleted'
  /** The job that it is to run as; null while one is to be made. Another one of it that is not over is to end. */
  readonly requestId: string | null
  /** Why it does not run although that is wished, until the next start. */
  readonly error: string | null
  readonly cpu: number
  readonly memoryMb: number
  readonly diskGb: number
  readonly image: string
  readonly imageDigest: string
  readonly isolationWish: 'vm' | 'container'
  /** Boots the init of its image. */
  readonly init: boolean
  readonly ipLease: boolean
  readonly port: number
  readonly workspaceId: string
  readonly keyGenerated: boolean
  readonly keyDownloadedAt: string | null
  readonly createdAt: string
  readonly updatedAt: string
}

export const microvmWorkspaceId = (id: string): string => `vm-${id}`

/**
 * What a microVM is, by what is wished and its newest job.
 *
 *     create ──► creating ──its machine is up──► running ──stop──► stopping ──its disk is saved──► stopped
 *                   ▲ └──────────┬─────────────────┘ └──powered off from inside────────┘             │
 *                   │            └──could not be started, ended by itself──► error ──stop──► stopped │
 *                   ├──restart, rebooted from inside (from running)            │                     │
 *                   └──start───────────────────────────────────────────────────┴─────────────────────┘
 *
 * A start during `stopping` is done once it is stopped; a stop during `creating` ends the start. A server that starts goes on with all of this, and starts again what is wished to run and lost its machine.
 * `isUp`: the machine of the job was started, and its services with it.
 */
export function statusOf({ wish, error, requestId }: Microvm, job: Pick<Job, 'status' | 'requestId'> | undefined, isUp: boolean): MicrovmStatus {
  const lives = job !== undefined && !isFinal(job.status)
  if (wish !== 'running') return lives ? 'stopping' : 'stopped'
  if (error !== null) return 'error'
  return lives && isUp && job.requestId === requestId ? 'running' : 'creating'
}

/** The next job of a microVM, not stored yet; what was changed of the one before stays so. `now`: ms since 1970. */
export function nextJob(microvm: Microvm, before: Pick<Job, 'port' | 'egress'>, now: number): Job {
  const { accountId, name, image, imageDigest, isolationWish, cpu, memoryMb, diskGb, workspaceId, init, ipLease } = microvm
  const { port, egress } = before
  return newJob(
    {
      ...{ accountId, name, image, imageDigest, isolationWish, memoryMb, diskGb, workspaceId, init, ipLease, port, egress },
      kind: 'microvm',
      definitionId: microvm.id,
      // Of a microVM without an init there is nothing to run but what its user starts.
      script: ':',
      vcpus: cpu,
      persistent: true,
      noSleep: true,
    },
    now,
  )
}
