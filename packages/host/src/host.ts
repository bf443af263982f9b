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
} from '@mags/protocol'
import type { Sandbox, SandboxDriver, SandboxShape } from './drivers/driver.ts'
import type { ImageCatalogue } from './images/image-catalogue.ts'
import type { WarmPool } from './pool/warm-pool.ts'
import { HostSandbox } from './sandboxes/host-sandbox.ts'

/** One kind of wall with its pool, or why this machine cannot have it. */
export type Wall = { readonly driver: SandboxDriver; readonly pool: WarmPool; readonly detail: string } | { readonly missing: string }

export interface HostParts {
  readonly walls: Readonly<Record<'vm' | 'container', Wall>>
  readonly default: 'vm' | 'container'
  readonly images: ImageCatalogue
  readonly limits: { readonly maxVcpus: number; readonly maxMemoryMb: number; readonly maxDiskGb: number }
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

  capabilities(): HostCapabilities {
    const { walls, images, limits, defaultImage } = this.#parts
    const describe = (wall: Wall) => ('missing' in wall ? { available: false, detail: wall.missing } : { available: true, detail: wall.detail })
    const chosen = walls[this.#parts.default]
    const isolation: Isolation = 'missing' in chosen ? 'container' : chosen.driver.isolation
    return { default: isolation, vm: describe(walls.vm), container: describe(walls.container), images: images.names(), defaultImage, ...limits }
  }

  async acquire(spec: SandboxSpec, abort?: AbortSignal): Promise<SandboxLease> {
    const begin = performance.now()
    this.#parts.images.get(spec.image)
    const { pool } = this.#wall(spec.isolation)
    const shape = { image: spec.image, vcpus: spec.vcpus, memoryMb: spec.memoryMb, diskGb: spec.diskGb }
    const { sandbox, warm } = await pool.take(shape, abort)
    this.#own(sandbox, spec.persistent)
    try {
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
      run: (script, sink) => this.#run(sandbox, shape, script, sink),
      release: () => this.#end(sandbox),
    }
  }

  async adopt(sandboxId: string, resume: { stdout: number; stderr: number }, sink: OutputSink): Promise<RunningSandbox | undefined> {
    for (const wall of Object.values(this.#parts.walls)) {
      if ('missing' in wall) continue
      const sandbox = await wall.driver.adopt(sandboxId)
      if (sandbox === undefined) continue
      wall.pool.adopt(sandbox)
      this.#own(sandbox, true)
      return HostSandbox.resume(sandbox, resume, sink, () => this.#end(sandbox))
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
    await Promise.allSettled(walls.map(({ driver }) => driver.close()))
    await this.#parts.release({ keepNetwork: kept.length > 0 })
  }

  #wall(wish: SandboxSpec['isolation']) {
    const name = wish === 'auto' ? this.#parts.default : wish
    const wall = this.#parts.walls[name]
    if ('missing' in wall) throw new MagsError('not_available', `isolation: ${name} is not available on this server: ${wall.missing}`)
    return wall
  }

  #own(sandbox: Sandbox, persistent: boolean) {
    this.#owned.set(sandbox.id, { sandbox, persistent })
    sandbox.died.then(() => this.#owned.delete(sandbox.id))
  }

  /** Ends a sandbox. From now on it is none to keep for the next daemon, even if this one stops before the end has come. */
  #end(sandbox: Sandbox) {
    if (this.#owned.has(sandbox.id)) this.#owned.set(sandbox.id, { sandbox, persistent: false })
    return sandbox.destroy()
  }

  async #run(sandbox: Sandbox, shape: SandboxShape, script: ScriptSpec, sink: OutputSink): Promise<RunningSandbox> {
    const begin = performance.now()
    try {
      await sandbox.attach(shape)
      return HostSandbox.start(sandbox, script, sink, { attachMs: () => performance.now() - begin, end: () => this.#end(sandbox) })
    } catch (error) {
      await sandbox.destroy()
      const words = error instanceof Error ? error.message : String(error)
      throw new MagsError('sandbox_failed', `the sandbox could not be made ready: ${words}`, { cause: error })
    }
  }
}
