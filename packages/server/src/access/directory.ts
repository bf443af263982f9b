import type { Duplex } from 'node:stream'
import { type GatewayDirectory, type GatewayLease, type GatewayTarget, isFinal, MagsError, type ProgramRequest, type RunningProgram } from '@mags/protocol'
import type { AliasLookup } from '../aliases/alias-lookup.ts'
import type { Job } from '../jobs/job.ts'
import type { JobStore } from '../jobs/store.ts'
import type { MicrovmStore } from '../microvms/store.ts'
import type { Tokens } from '../tokens/tokens.ts'
import type { WorkspaceStore } from '../workspaces/store.ts'
import type { LiveJob, LiveJobs } from './live-jobs.ts'
import { Misses } from './misses.ts'
import { ownerOf } from './owner.ts'
import type { SshKeyStore } from './ssh-key-store.ts'
import { type AccessStore, noAccess } from './store.ts'

export interface DirectoryDeps {
  readonly live: LiveJobs
  readonly store: JobStore
  readonly workspaces: WorkspaceStore
  readonly access: AccessStore
  readonly sshKeys: SshKeyStore
  readonly microvms: MicrovmStore
  readonly tokens: Tokens
  readonly aliases: AliasLookup | undefined
  readonly appsUrl: () => string | undefined
  readonly now: () => number
}

const label = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/
const ownSubdomain = /^[0-9a-f]{12}$/
const longestHost = 253

/** Who is meant by a host name, an SSH port or user name, for the gateway. Jobs that are not over are known from memory; a name that means nothing is looked up once every few seconds at most. */
export class Directory implements GatewayDirectory {
  readonly #deps: DirectoryDeps
  readonly #misses: Misses

  constructor(deps: DirectoryDeps) {
    this.#deps = deps
    this.#misses = new Misses(deps.now)
  }

  async findByHost(host: string): Promise<GatewayTarget | undefined> {
    if (host.length > longestHost) return undefined
    const name = this.#labelOf(host)
    // Below the apps domain, but not one label of DNS.
    if (name === null) return undefined
    const live = name === undefined ? undefined : this.#deps.live.byLabel(name)
    if (live) return await this.#target(live)
    const alias = await this.#deps.aliases?.find(name, host)
    if (alias) return await this.#ofWorkspace(alias.accountId, alias.workspaceId)
    // An alias is found at once, so only what is left may be asked for less often.
    if (name === undefined || !ownSubdomain.test(name) || this.#misses.has(name)) return undefined
    const found = await this.#findOver(name)
    if (found === undefined) this.#misses.add(name)
    return found
  }

  async findBySshPort(port: number): Promise<GatewayTarget | undefined> {
    const live = this.#deps.live.bySshPort(port)
    return live && (await this.#target(live))
  }

  async findBySshUser(user: string, publicKey: string): Promise<GatewayTarget | undefined> {
    if (user.length > 100) return undefined
    // Only of the account that had the key first: somebody else who adds it must not have its owner come to a sandbox of theirs by a name that the owner has none of.
    const [accountId] = await this.#deps.sshKeys.accountsWith(publicKey)
    const named = accountId === undefined ? undefined : await this.#findOf(accountId, user)
    if (named) return named
    // A key of single jobs opens those only, whatever account they are of.
    const owners = await this.#deps.access.findOwnersByKey(publicKey)
    const opened = owners.flatMap((owner) => this.#deps.live.byOwner(owner) ?? [])
    for (const accountId of new Set(opened.map((live) => live.accountId))) {
      const target = await this.#findOf(accountId, user)
      if (target && opened.some(({ requestId }) => requestId === target.requestId)) return target
    }
    return undefined
  }

  async acceptsKey(requestId: string, publicKey: string): Promise<boolean> {
    const live = this.#deps.live.get(requestId)
    if (live === undefined) return false
    const { sshPublicKey, authorizedKeys } = await this.#deps.live.accessOf(live)
    if (sshPublicKey === publicKey || authorizedKeys.includes(publicKey)) return true
    return (await this.#deps.sshKeys.accountsWith(publicKey)).includes(live.accountId)
  }

  async sshPorts(): Promise<readonly number[]> {
    return this.#deps.live.sshPorts
  }

  onSshPort(listener: (port: number, open: boolean) => void): () => void {
    return this.#deps.live.onSshPort(listener)
  }

  async acceptsToken(requestId: string, token: string): Promise<boolean> {
    const live = this.#deps.live.get(requestId)
    const identity = live && (await this.#deps.tokens.verify(token))
    return identity !== undefined && identity.accountId === live?.accountId
  }

  async open(requestId: string, reason: 'http' | 'ssh', abort?: AbortSignal): Promise<GatewayLease> {
    const live = this.#deps.live.get(requestId)
    if (live === undefined) throw new MagsError('job_not_running', 'the job is over')
    if (!live.persistent) throw new MagsError('job_not_running', `job ${live.name} is not persistent, so it cannot be reached from outside`)
    const { run } = live
    const use = await run.uses.use(reason, abort).catch((error: unknown) => {
      throw reason === 'http' ? forStrangers(error, live.name) : error
    })
    const { running, wokenAt } = use
    return {
      gone: running.gone,
      wokenAt,
      connect: (port: number): Promise<Duplex> => running.connect(port),
      start: (request: ProgramRequest, onOutput): RunningProgram =>
        running.start({ ...request, environment: run.uses.environmentWith(request.environment) }, onOutput),
      [Symbol.dispose]: () => use[Symbol.dispose](),
    }
  }

  /** What stands before the apps domain; undefined when the host is not below it, null when that is no name. */
  #labelOf(host: string): string | undefined | null {
    const appsUrl = this.#deps.appsUrl()
    const domain = appsUrl === undefined ? undefined : new URL(appsUrl).hostname
    if (domain === undefined) return undefined
    if (host === domain) return null
    if (!host.endsWith(`.${domain}`)) return undefined
    const name = host.slice(0, -domain.length - 1)
    return label.test(name) ? name : null
  }

  async #findOver(subdomain: string): Promise<GatewayTarget | undefined> {
    const { store, workspaces } = this.#deps
    const workspace = await workspaces.bySubdomain(subdomain)
    if (workspace) return await this.#ofWorkspace(workspace.accountId, workspace.workspaceId)
    const job = await store.findBySubdomain(subdomain)
    return job && (await this.#overTarget(job))
  }

  /** Its newest job. */
  async #ofWorkspace(accountId: string, workspaceId: string): Promise<GatewayTarget | undefined> {
    const live = this.#deps.live.byWorkspace(accountId, workspaceId)
    if (live) return await this.#target(live)
    // Jobs outlive their workspace: one of a workspace that was deleted is nobody's any more.
    if ((await this.#deps.workspaces.find(accountId, workspaceId)) === undefined) return undefined
    const job = await this.#deps.store.findByWorkspace(accountId, workspaceId)
    return job && (await this.#overTarget(job))
  }

  /** By everything a user of SSH may call a job of this account. */
  async #findOf(accountId: string, user: string): Promise<GatewayTarget | undefined> {
    const { live, store, aliases, microvms } = this.#deps
    const byLabel = live.byLabel(user)
    if (byLabel?.accountId === accountId) return await this.#target(byLabel)
    const job = await store.find(accountId, user)
    if (job) return await this.#targetOf(job)
    const microvm = await microvms.find(accountId, user)
    if (microvm) return await this.#ofWorkspace(accountId, microvm.workspaceId)
    const alias = label.test(user) ? await aliases?.find(user, `${user}.${new URL(this.#deps.appsUrl() ?? 'http://none').hostname}`) : undefined
    return alias?.accountId === accountId ? await this.#ofWorkspace(alias.accountId, alias.workspaceId) : undefined
  }

  async #targetOf(job: Job): Promise<GatewayTarget> {
    const live = this.#deps.live.get(job.requestId)
    return live ? await this.#target(live) : await this.#overTarget(job)
  }

  async #target(live: LiveJob): Promise<GatewayTarget> {
    const { requestId, name, port, run } = live
    const { visibility } = live.access ?? (await this.#deps.live.accessOf(live))
    const state = run.isOver ? 'over' : !run.uses.hasBegun ? 'starting' : run.sleep.stage !== undefined ? 'sleeping' : 'running'
    return { requestId, name, port, visibility, state, startedAt: run.uses.wokenAt }
  }

  /** A job that is not known here: over, or so young that it is not yet. */
  async #overTarget(job: Job): Promise<GatewayTarget> {
    const { requestId, name, port, startedAt, status } = job
    const isOver = isFinal(status)
    // Nothing is shown of one that is over, and nobody learns whether it was private; the other may be there in a moment.
    const { visibility } = isOver ? noAccess : await this.#deps.access.find(ownerOf(job))
    return { requestId, name, port, visibility, state: isOver ? 'over' : 'starting', startedAt: startedAt === null ? null : Date.parse(startedAt) }
  }
}

/** Whoever visits a URL may be anybody; what went wrong on this machine is for the owner. */
function forStrangers(error: unknown, name: string): unknown {
  if (!(error instanceof MagsError) || error.code !== 'wake_failed') return error
  return new MagsError('wake_failed', `${name} could not be woken; its owner hears why from: mags wake ${name}`, { cause: error })
}
