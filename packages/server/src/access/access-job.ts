import { type AccessRequest, MagsError, type SshAccessAnswer, type UrlAccessAnswer } from '@mags/protocol'
import { type Job, subdomainOf } from '../jobs/job.ts'
import type { JobRun } from '../jobs/job-run.ts'
import { urlOf } from '../jobs/present-job.ts'
import { requireLasting } from '../jobs/sleep/sleep-job.ts'
import type { JobStore } from '../jobs/store.ts'
import type { KeyDownloads } from './key-downloads.ts'
import type { LiveJobs } from './live-jobs.ts'
import { ownerOf } from './owner.ts'
import type { AccessStore } from './store.ts'

export interface AccessDeps {
  readonly store: JobStore
  readonly access: AccessStore
  readonly live: LiveJobs
  readonly appsUrlNow: () => string | undefined
  /** What SSH clients connect to. */
  readonly sshHost: string | undefined
  /** Settles when a port is listened on, or with why it cannot be. */
  readonly sshPortFailure: (port: number) => Promise<string | undefined>
  readonly keyDownloads: KeyDownloads
}

const sshPort = 22

/** Opens a port of a persistent job: 22 for SSH, every other for its URL. A sleeping one is woken; `wakeMs` says how long that took. Rejects with MagsError naming what fails. */
export async function accessJob(
  deps: AccessDeps,
  job: Job,
  run: JobRun | undefined,
  request: AccessRequest,
  abort: AbortSignal,
): Promise<{ readonly answer: SshAccessAnswer | UrlAccessAnswer; readonly wakeMs: number | null }> {
  const lasting = requireLasting(job, run, 'access')
  if (request.port === sshPort && request.visibility !== undefined) throw new MagsError('bad_request', 'visibility: is for the URL; SSH always needs a key')
  if (job.status === 'pending' && !lasting.uses.hasBegun)
    throw new MagsError('job_not_running', `job ${job.name} has not started yet: access needs one that runs or sleeps; try again once its status is running`)
  using use = await lasting.uses.use('request', abort)
  const answer = request.port === sshPort ? await openSsh(deps, job) : await openUrl(deps, job, lasting, request)
  return { answer, wakeMs: use.wakeMs }
}

async function openSsh(deps: AccessDeps, job: Job): Promise<SshAccessAnswer> {
  const { live, sshHost, keyDownloads } = deps
  if (sshHost === undefined) throw new MagsError('not_available', 'this server has no SSH gateway')
  if (job.kind === 'microvm' && keyDownloads === 'once')
    throw new MagsError('not_available', `this server gives out the key of a microVM only once, by GET /api/v1/microvms/${job.definitionId}/ssh-keys/download`)
  const { port, privateKey } = await live.openSsh(job)
  await requireSshPort(deps, port)
  return { success: true, message: 'SSH proxy enabled', ssh_host: sshHost, ssh_port: port, ssh_private_key: privateKey, access_type: 'ssh_proxy' }
}

/** Rejects with MagsError('not_available') when the gateway does not listen on the port that a running job has for SSH. */
export async function requireSshPort({ sshPortFailure }: Pick<AccessDeps, 'sshPortFailure'>, port: number): Promise<void> {
  const failure = await sshPortFailure(port)
  if (failure === undefined) return
  throw new MagsError(
    'not_available',
    `port ${port} of the server, which is this job's for SSH, cannot be listened on (${failure}); free the port, which is tried again every few seconds. Each server of a machine needs a MAGS_SSH_FIRST_PORT of its own`,
  )
}

async function openUrl(deps: AccessDeps, job: Job, run: JobRun, { port, visibility }: AccessRequest): Promise<UrlAccessAnswer> {
  const { store, access, live } = deps
  const appsUrl = deps.appsUrlNow()
  if (appsUrl === undefined) throw new MagsError('not_available', 'this server has no gateway for URLs')
  if (visibility !== undefined) await live.setVisibility(job, visibility)
  if (!(await store.update(job.requestId, { port }))) throw new MagsError('job_not_running', `job ${job.name} is over: access needs one that runs or sleeps`)
  live.setPort(job.requestId, port)
  run.uses.markUrlUsed()
  const now = await access.find(ownerOf(job))
  return {
    success: true,
    message: 'External access enabled',
    url: urlOf(job, appsUrl),
    subdomain: subdomainOf(job),
    ipv6_address: null,
    port,
    visibility: now.visibility,
    access_type: 'http_proxy',
  }
}
