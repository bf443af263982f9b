import { MagsError, type Visibility } from '@mags/protocol'
import type { Logger } from 'pino'
import { type Job, type JobHead, subdomainOf } from '../jobs/job.ts'
import type { JobRun } from '../jobs/job-run.ts'
import { ownerOf } from './owner.ts'
import { type Access, type AccessStore, noAccess, type SshAccess } from './store.ts'

/** A job that is not over, as those see it who want to reach it. */
export interface LiveJob {
  readonly requestId: string
  readonly accountId: string
  readonly name: string
  readonly workspaceId: string | null
  readonly persistent: boolean
  readonly owner: string
  readonly run: JobRun
  /** What its URL reaches. */
  port: number
  /** Absent until somebody asked; see `LiveJobs.accessOf`. */
  access: Access | undefined
}

type PortListener = (port: number, open: boolean) => void

/**
 * The jobs that are not over, by everything that may name them in a host name: the workspace's or their own subdomain, and how their request id begins. No SQL when one is added, because that is on the start path; how it is
 * reached is read when somebody asks, or soon after its start.
 */
export class LiveJobs {
  readonly #store: AccessStore
  readonly #logger: Logger
  readonly #jobs = new Map<string, LiveJob>()
  readonly #labels = new Map<string, LiveJob>()
  readonly #workspaces = new Map<string, LiveJob>()
  readonly #owners = new Map<string, LiveJob>()
  readonly #ports = new Map<number, LiveJob>()
  readonly #listeners = new Set<PortListener>()

  constructor(store: AccessStore, logger: Logger) {
    this.#store = store
    this.#logger = logger
  }

  /** Again when it has got its workspace, or is tried again. */
  add(job: JobHead, run: JobRun): void {
    const { requestId, accountId, name, workspaceId, persistent, port } = job
    const live: LiveJob = { requestId, accountId, name, workspaceId, persistent, port, owner: ownerOf(job), run, access: undefined }
    const labels = labelsOf(job)
    this.#jobs.set(requestId, live)
    this.#owners.set(live.owner, live)
    for (const label of labels) this.#labels.set(label, live)
    if (workspaceId !== null) {
      const key = workspaceKey(accountId, workspaceId)
      // What only waits for it is not what is meant by it, as long as another job has it.
      const other = this.#workspaces.get(key)
      if (job.workspaceStorageId !== null || other === undefined || other.requestId === requestId) this.#workspaces.set(key, live)
    }
    // A port that was handed out before is open again: to the job on the same workspace, and after a restart of the server.
    if (persistent && (workspaceId !== null || job.status !== 'pending'))
      void run.uses.begun.then(() => this.accessOf(live)).catch((error: unknown) => this.#warn(error, live))
    void run.done.then(() => this.#remove(live, labels))
  }

  get(requestId: string): LiveJob | undefined {
    return this.#jobs.get(requestId)
  }

  byLabel(label: string): LiveJob | undefined {
    return this.#labels.get(label)
  }

  byWorkspace(accountId: string, workspaceId: string): LiveJob | undefined {
    return this.#workspaces.get(workspaceKey(accountId, workspaceId))
  }

  byOwner(owner: string): LiveJob | undefined {
    return this.#owners.get(owner)
  }

  bySshPort(port: number): LiveJob | undefined {
    return this.#ports.get(port)
  }

  get sshPorts(): readonly number[] {
    return [...this.#ports.keys()]
  }

  onSshPort(listener: PortListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** How it is reached; read once. */
  async accessOf(live: LiveJob): Promise<Access> {
    if (live.access === undefined) {
      // What was changed meanwhile is newer.
      const found = await this.#store.find(live.owner)
      this.#setAccess(live, live.access ?? found)
    }
    return live.access ?? noAccess
  }

  /** Port and key for SSH, made when there are none. Rejects with MagsError 'job_not_running' when the job is over meanwhile, and as `AccessStore.sshOf`. */
  async openSsh(job: Pick<Job, 'requestId' | 'workspaceStorageId'>): Promise<SshAccess> {
    const live = this.#jobs.get(job.requestId)
    // Read before anything of it changes, so that no older answer comes later.
    if (live) await this.accessOf(live)
    const ssh = await this.#store.sshOf(ownerOf(job))
    if (live === undefined || !this.#jobs.has(job.requestId)) {
      if (job.workspaceStorageId === null) await this.#store.forget(ownerOf(job))
      throw new MagsError('job_not_running', 'the job is over: access needs one that runs or sleeps')
    }
    this.#setAccess(live, { ...(live.access ?? noAccess), sshPort: ssh.port, sshPublicKey: ssh.publicKey })
    return ssh
  }

  async setVisibility(job: Pick<Job, 'requestId' | 'workspaceStorageId'>, visibility: Visibility): Promise<void> {
    const live = this.#jobs.get(job.requestId)
    if (live) await this.accessOf(live)
    await this.#store.setVisibility(job, visibility)
    if (live) live.access = { ...(live.access ?? noAccess), visibility }
  }

  #setAccess(live: LiveJob, access: Access): void {
    live.access = access
    const { sshPort } = access
    if (sshPort === null || !this.#jobs.has(live.requestId) || this.#ports.get(sshPort) === live) return
    const isNew = !this.#ports.has(sshPort)
    this.#ports.set(sshPort, live)
    if (isNew) this.#tell(sshPort, true)
  }

  setPort(requestId: string, port: number): void {
    const live = this.#jobs.get(requestId)
    if (live) live.port = port
  }

  #remove(live: LiveJob, labels: readonly string[]): void {
    this.#jobs.delete(live.requestId)
    if (this.#owners.get(live.owner) === live) this.#owners.delete(live.owner)
    for (const label of labels) if (this.#labels.get(label) === live) this.#labels.delete(label)
    if (live.workspaceId !== null) {
      const key = workspaceKey(live.accountId, live.workspaceId)
      if (this.#workspaces.get(key) === live) this.#workspaces.delete(key)
    }
    // Only when it is over: a server that ends leaves it as it is, for the next one.
    if (live.run.isOver && live.persistent && live.workspaceId === null) this.#store.forget(live.owner).catch((error: unknown) => this.#warn(error, live))
    const sshPort = live.access?.sshPort ?? null
    if (sshPort === null || this.#ports.get(sshPort) !== live) return
    this.#ports.delete(sshPort)
    this.#tell(sshPort, false)
  }

  #tell(port: number, open: boolean): void {
    for (const listener of this.#listeners) listener(port, open)
  }

  #warn(error: unknown, live: LiveJob): void {
    this.#logger.warn({ err: error, requestId: live.requestId }, 'how a job is reached could not be read or forgotten')
  }
}

/** `xxxxxxxx-xxx`, the first twelve characters of the request id, is a valid label, and so are its first twelve hex digits. */
function labelsOf(job: JobHead): readonly string[] {
  return [...new Set([subdomainOf(job), job.subdomain, job.requestId.slice(0, 12), job.requestId.replaceAll('-', '').slice(0, 12)])]
}

const workspaceKey = (accountId: string, workspaceId: string) => `${accountId}\0${workspaceId}`
