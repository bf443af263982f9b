import {
  type HostApi,
  type HostCapabilities,
  type Isolation,
  MagsError,
  type OutputSink,
  type RunningSandbox,
  type SandboxLease,
  type SandboxSpec,
  type ScriptSpec,
  type WorkspaceHold,
  type WorkspaceSaved,
} from '@mags/protocol'
import type { Sandbox, SandboxDriver, SandboxShape } from './drivers/driver.ts'
import type { Egress } from './egress/egress.ts'
import type { ImageCatalogue } from './images/image-catalogue.ts'
import type { WarmPool } from './pool/warm-pool.ts'
import { HostSandbox } from './sandboxes/host-sandbox.ts'
import type { OpenWorkspace } from './workspaces/local/open-workspace.ts'
import type { PreparedRoot } from './workspaces/local/prepare-root.ts'
import type { Workspaces } from './workspaces/workspaces.ts'

/** One kind of wall with its pool, or why this machine cannot have it. */
export type Wall = OpenWall | { readonly missing: string }

export interface OpenWall {
  readonly driver: SandboxDriver
  readonly pool: WarmPool
  readonly detail: string
}

export interface HostParts {
  readonly walls: Readonly<Record<'vm' | 'container', Wall>>
  readonly default: 'vm' | 'container'
  readonly images: ImageCatalogue
  readonly workspaces: Workspaces
  readonly egress: Egress
  readonly limits: { readonly maxVcpus: number; readonly maxMemoryMb: number; readonly maxDiskGb: number }
  readonly defaultShape: SandboxShape
  readonly defaultImage: string
  readonly pool: { readonly minSize: number; readonly maxSize: number }
  /** Frees network slots that no adopted sandbox uses. */
  readonly freeNetworkLeftovers: () => Promise<void>
  /** Frees network and helpers, after all sandboxes are gone or let go. */
  readonly release: (options: { keepNetwork: boolean }) => Promise<void>
}

interface Owned {
  readonly sandbox: Sandbox
  readonly persistent: boolean
  /** Settles when all that the sandbox had is free. */
  readonly closed: Promise<void>
}

/** A sandbox that a job has. */
interface Taken {
  readonly sandbox: Sandbox
  readonly shape: SandboxShape
  readonly prepared: PreparedRoot | undefined
  readonly workspace: OpenWorkspace | undefined
}

/**
 * How sandboxes run on this machine.
 *
 *     recovering ──settle──▶ serving ──close──▶ closed
 *
 * While recovering, `adopt` takes back what outlived the last daemon; `settle` frees the rest and fills the pools.
 */
export class Host implements HostApi {
  readonly #parts: HostParts
  readonly #owned = new Map<string, Owned>()

  constructor(parts: HostParts) {
    this.#parts = parts
  }

  get workspaces() {
    return this.#parts.workspaces
  }

  capabilities(): HostCapabilities {
    const { walls, images, limits, defaultImage } = this.#parts
    const describe = (wall: Wall) => ('missing' in wall ? { available: false, detail: wall.missing } : { available: true, detail: wall.detail })
    const chosen = walls[this.#parts.default]
    const isolation: Isolation = 'missing' in chosen ? 'container' : chosen.driver.isolation
    return {
      default: isolation,
      vm: describe(walls.vm),
      container: describe(walls.container),
      images: images.names(),
      imageDigests: images.digests(),
      defaultImage,
      ...limits,
    }
  }

  async acquire(spec: SandboxSpec, abort?: AbortSignal, onProgress: (words: string) => void = () => undefined): Promise<SandboxLease> {
    const begin = performance.now()
    this.#parts.images.get(spec.image)
    const wall = this.#wall(spec.isolation)
    const shape = { image: spec.image, vcpus: spec.vcpus, memoryMb: spec.memoryMb, diskGb: spec.diskGb }
    const wantsRoot = spec.workspace !== undefined || spec.base !== undefined
    const { taken, prepared } = wantsRoot
      ? await this.#takeWithRoot(wall, shape, () => this.#prepare(wall, spec, onProgress, abort), abort)
      : { taken: await wall.pool.take(shape, abort), prepared: undefined }
    const { sandbox, warm } = taken
    const closed = this.#own(sandbox, spec.persistent, prepared)
    let workspace: OpenWorkspace | undefined
    try {
      if (spec.workspace !== undefined) {
        workspace = await this.workspaces.opened(spec.workspace.storageId, sandbox)
        closed.then(() => workspace?.close())
      }
      if (spec.persistent) await sandbox.keep(true)
    } catch (error) {
      await sandbox.destroy()
      throw error
    }
    return {
      sandboxId: sandbox.id,
      isolation: sandbox.isolation,
      acquireMs: performance.now() - begin,
      warm,
      run: (script, sink) => this.#run({ sandbox, shape, prepared, workspace }, script, sink),
      release: () => this.#end(sandbox),
    }
  }

  async adopt(sandboxId: string, resume: { stdout: number; stderr: number }, sink: OutputSink): Promise<RunningSandbox | undefined> {
    for (const wall of Object.values(this.#parts.walls)) {
      if ('missing' in wall) continue
      const sandbox = await wall.driver.adopt(sandboxId)
      if (sandbox === undefined) continue
      wall.pool.adopt(sandbox)
      const closed = this.#own(sandbox, true)
      const workspace = this.workspaces.adopted(sandbox)
      if (workspace !== undefined) closed.then(() => workspace.close())
      return HostSandbox.resume(sandbox, resume, sink, { workspace, egress: this.#parts.egress.of(sandbox), end: () => this.#end(sandbox) })
    }
    return undefined
  }

  async settle() {
    for (const wall of Object.values(this.#parts.walls)) {
      if ('missing' in wall) continue
      await wall.driver.sweep()
    }
    await this.#parts.freeNetworkLeftovers()
    for (const wall of Object.values(this.#parts.walls)) if (!('missing' in wall)) wall.pool.open()
    await this.workspaces.serve((hold, image, diskGb, isolation) => this.#saveLeft(hold, image, diskGb, isolation))
  }

  poolStatus() {
    const { walls, pool } = this.#parts
    const statuses = Object.values(walls).flatMap((wall) => ('missing' in wall ? [] : [wall.pool.status()]))
    const sum = (pick: (status: (typeof statuses)[number]) => number) => statuses.reduce((total, status) => total + pick(status), 0)
    const takes = sum(({ takes }) => takes)
    const lastFailure = statuses.find((status) => status.lastFailure !== undefined)?.lastFailure
    return {
      idle: sum(({ idle }) => idle),
      busy: sum(({ busy }) => busy),
      sleeping: 0,
      minSize: pool.minSize,
      maxSize: pool.maxSize,
      hitRate: takes === 0 ? 1 : sum(({ hits }) => hits) / takes,
      ...(lastFailure === undefined ? {} : { lastFailure }),
    }
  }

  async close({ keepPersistent }: { keepPersistent: boolean }) {
    const walls = Object.values(this.#parts.walls).flatMap((wall) => ('missing' in wall ? [] : [wall]))
    await Promise.all(walls.map(({ pool }) => pool.close()))
    const kept = [...this.#owned.values()].filter(({ persistent }) => persistent && keepPersistent)
    const ended = [...this.#owned.values()].filter((owned) => !kept.includes(owned))
    await Promise.allSettled([...kept.map(({ sandbox }) => sandbox.detach()), ...ended.map(({ sandbox }) => sandbox.destroy())])
    await Promise.allSettled(ended.map(({ closed }) => closed))
    await this.workspaces.close()
    await Promise.allSettled(walls.map(({ driver }) => driver.close()))
    await this.#parts.release({ keepNetwork: kept.length > 0 })
  }

  #wall(wish: SandboxSpec['isolation']): OpenWall {
    const name = wish === 'auto' ? this.#parts.default : wish
    const wall = this.#parts.walls[name]
    if ('missing' in wall) throw new MagsError('not_available', `isolation: ${name} is not available on this server: ${wall.missing}`)
    return wall
  }

  #prepare({ driver }: OpenWall, spec: SandboxSpec, onProgress: (words: string) => void, abort: AbortSignal | undefined) {
    const { workspace, base, diskGb } = spec
    return this.workspaces.prepare({
      image: this.#parts.images.get(spec.image),
      diskGb,
      stacks: driver.stacks,
      ...(workspace === undefined ? {} : { workspace }),
      ...(base === undefined ? {} : { base }),
      onProgress,
      ...(abort === undefined ? {} : { abort }),
    })
  }

  /** The root first: a taken sandbox has the pool make another, which would fight for the processor with what is still to be done here. */
  async #takeWithRoot({ driver, pool }: OpenWall, shape: SandboxShape, prepare: () => Promise<PreparedRoot>, abort: AbortSignal | undefined) {
    const prepared = await prepare()
    try {
      const taken = driver.rootAt === 'create' ? await pool.takeNew(shape, prepared.root, abort) : await pool.take(shape, abort)
      return { taken, prepared }
    } catch (error) {
      await prepared.release()
      throw error
    }
  }

  /** A sandbox that runs nothing: only a driver knows how to read what its sandboxes wrote. */
  async #saveLeft(hold: WorkspaceHold, image: string, diskGb: number, isolation: 'vm' | 'container'): Promise<WorkspaceSaved> {
    const { vcpus, memoryMb } = this.#parts.defaultShape
    const lease = await this.acquire({ image, isolation, vcpus, memoryMb, diskGb, persistent: false, workspace: hold })
    try {
      const running = await lease.run({ script: 'exit 0', environment: {} }, async () => undefined)
      return await running.saveWorkspace({ final: true })
    } finally {
      await lease.release()
    }
  }

  #own(sandbox: Sandbox, persistent: boolean, prepared?: PreparedRoot): Promise<void> {
    // `died` comes before all is free, `destroy` settles after it.
    const closed = sandbox.died.then(async () => {
      this.#owned.delete(sandbox.id)
      await sandbox.destroy().catch(() => undefined)
      await prepared?.release()
    })
    this.#owned.set(sandbox.id, { sandbox, persistent, closed })
    return closed
  }

  /** Ends a sandbox. From now on it is none to keep for the next daemon, even if this one stops before the end has come. */
  #end(sandbox: Sandbox) {
    const owned = this.#owned.get(sandbox.id)
    if (owned !== undefined) this.#owned.set(sandbox.id, { ...owned, persistent: false })
    return sandbox.destroy()
  }

  async #run({ sandbox, shape, prepared, workspace }: Taken, script: ScriptSpec, sink: OutputSink): Promise<RunningSandbox> {
    const begin = performance.now()
    const { driver } = this.#wall(sandbox.isolation === 'container' ? 'container' : 'vm')
    try {
      await workspace?.begin()
      const attached = sandbox.attach(shape, driver.rootAt === 'attach' ? prepared?.root : undefined)
      // Both to their end, whichever fails: what is still being attached could not be given back.
      await Promise.allSettled([attached, prepared?.claimed])
      await attached
      await prepared?.claimed
      const around = { workspace, egress: this.#parts.egress.of(sandbox), end: () => this.#end(sandbox) }
      return await HostSandbox.start(sandbox, script, sink, { attachMs: () => performance.now() - begin, ...around })
    } catch (error) {
      await workspace?.rest().catch(() => undefined)
      await sandbox.destroy()
      // The workspace's own trouble has a code of its own.
      if (error instanceof MagsError && (error.code === 'workspace_fenced' || error.code.startsWith('object_store'))) throw error
      const words = error instanceof Error ? error.message : String(error)
      throw new MagsError('sandbox_failed', `the sandbox could not be made ready: ${words}`, { cause: error })
    }
  }
}
