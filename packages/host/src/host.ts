import { rm } from 'node:fs/promises'
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
  type WorkspaceVersion,
} from '@mags/protocol'
import type { Sandbox, SandboxDriver, SandboxShape } from './drivers/driver.ts'
import type { HostParts, LeaseParts, OpenWall, Owned, Take, Taken, Wall } from './host-parts.ts'
import type { TakenSandbox } from './pool/warm-pool.ts'
import { checkBoots } from './sandboxes/boot-request.ts'
import { type Forked, HostSandbox, type Surroundings } from './sandboxes/host-sandbox.ts'
import type { OpenWorkspace } from './workspaces/local/open-workspace.ts'
import type { PreparedRoot } from './workspaces/local/prepare-root.ts'

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

  get images() {
    return this.#parts.machineImages
  }

  capabilities(): HostCapabilities {
    const { walls, images, limits, machineImages } = this.#parts
    const describe = (wall: Wall) => ('missing' in wall ? { available: false, detail: wall.missing } : { available: true, detail: wall.detail })
    const chosen = walls[this.#parts.default]
    const isolation: Isolation = 'missing' in chosen ? 'container' : chosen.driver.isolation
    return {
      default: isolation,
      vm: describe(walls.vm),
      container: describe(walls.container),
      images: images.names(),
      imageDigests: images.digests(),
      defaultImage: machineImages.defaultImage,
      ...limits,
      addressPrefixes: this.#parts.addressPrefixes,
    }
  }

  async acquire(spec: SandboxSpec, abort?: AbortSignal, onProgress: (words: string) => void = () => undefined): Promise<SandboxLease> {
    const begin = performance.now()
    const { image: name, imageDigest, vcpus, memoryMb, diskGb } = spec
    const { images, imageUses } = this.#parts
    if (images.find(name, imageDigest) === undefined) await images.load(name, imageDigest)
    const image = images.get(name, imageDigest)
    const letGo = imageUses.hold(image)
    try {
      const shape = { image: name, imageDigest: image.digest, vcpus, memoryMb, diskGb }
      const lease = await this.#acquire({ ...spec, imageDigest: image.digest }, shape, begin, abort, onProgress)
      this.#untilClosed(lease.sandboxId, letGo)
      return lease
    } catch (error) {
      letGo()
      throw error
    }
  }

  async #acquire(
    spec: SandboxSpec,
    shape: SandboxShape,
    begin: number,
    abort: AbortSignal | undefined,
    onProgress: (words: string) => void,
  ): Promise<SandboxLease> {
    if (spec.egress !== undefined) this.#parts.egress.check(spec.egress)
    const wall = this.#wall(spec.isolation)
    const wantsRoot = spec.workspace !== undefined || spec.base !== undefined
    const { taken, prepared } = wantsRoot
      ? await this.#takeWithRoot(wall, { shape, turn: spec, abort }, () => this.#prepare(wall, spec, onProgress, abort))
      : { taken: await wall.pool.take(shape, abort, spec), prepared: undefined }
    return await this.#lease(taken, { spec, shape, prepared, begin })
  }

  async adopt(sandboxId: string, resume: { stdout: number; stderr: number; asleep?: boolean }, sink: OutputSink): Promise<RunningSandbox | undefined> {
    for (const wall of Object.values(this.#parts.walls)) {
      if ('missing' in wall) continue
      const sandbox = await wall.driver.adopt(sandboxId)
      if (sandbox === undefined) continue
      wall.pool.adopt(sandbox)
      const closed = this.#own(sandbox, true)
      this.#holdImage(sandbox)
      const workspace = this.workspaces.adopted(sandbox)
      if (workspace !== undefined) closed.then(() => workspace.close())
      const running = HostSandbox.resume(sandbox, resume, sink, this.#around(wall, sandbox, workspace))
      // Its agent had to be asked where its script is; then it goes on sleeping.
      if (resume.asleep) await running.sleep().catch(() => undefined)
      return running
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
    this.#parts.machineImages.serve()
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
      sleeping: sum(({ sleeping }) => sleeping),
      minSize: pool.minSize,
      maxSize: pool.maxSize,
      hitRate: takes === 0 ? 1 : sum(({ hits }) => hits) / takes,
      ...(lastFailure === undefined ? {} : { lastFailure }),
    }
  }

  async close({ keepPersistent }: { keepPersistent: boolean }) {
    const walls = Object.values(this.#parts.walls).flatMap((wall) => ('missing' in wall ? [] : [wall]))
    await this.#parts.machineImages.close()
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
      image: this.#parts.images.get(spec.image, spec.imageDigest),
      diskGb,
      stacks: driver.stacks,
      ...(workspace === undefined ? {} : { workspace }),
      ...(base === undefined ? {} : { base }),
      onProgress,
      ...(abort === undefined ? {} : { abort }),
    })
  }

  /** The root first: a taken sandbox has the pool make another, which would fight for the processor with what is still to be done here. */
  #takeFor({ driver, pool }: OpenWall, { shape, prepared, turn, abort }: Take): Promise<TakenSandbox> {
    return driver.rootAt === 'create' && prepared !== undefined ? pool.takeNew(shape, prepared.root, abort, turn) : pool.take(shape, abort, turn)
  }

  async #takeWithRoot(wall: OpenWall, take: Omit<Take, 'prepared'>, prepare: () => Promise<PreparedRoot>) {
    const prepared = await prepare()
    try {
      return { taken: await this.#takeFor(wall, { ...take, prepared }), prepared }
    } catch (error) {
      await prepared.release()
      throw error
    }
  }

  /** A sandbox that runs nothing: only a driver knows how to read what its sandboxes wrote. */
  async #saveLeft(hold: WorkspaceHold, { name, digest }: WorkspaceVersion['image'], diskGb: number, isolation: 'vm' | 'container'): Promise<WorkspaceSaved> {
    const { vcpus, memoryMb } = this.#parts.defaultShape
    const lease = await this.acquire({ image: name, imageDigest: digest, isolation, vcpus, memoryMb, diskGb, persistent: false, workspace: hold })
    try {
      const running = await lease.run({ script: 'exit 0', environment: {} }, async () => undefined)
      return await running.saveWorkspace({ final: true })
    } finally {
      await lease.release()
    }
  }

  /** Gives a sandbox to a job. `resumes`: it has a script already, which `run` takes over. */
  async #lease({ sandbox, warm }: TakenSandbox, { spec, shape, prepared, begin, resumes = false }: LeaseParts): Promise<SandboxLease> {
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
      run: (script, sink) => this.#run({ sandbox, shape, prepared, workspace, policy: spec.egress, addresses: spec.addresses, resumes }, script, sink),
      release: () => this.#end(sandbox),
    }
  }

  /** See `RunningSandbox.fork`. */
  async #fork(wall: OpenWall, source: Sandbox, workspace: OpenWorkspace | undefined, asked: SandboxSpec, abort?: AbortSignal): Promise<Forked> {
    const begin = performance.now()
    const { driver, pool } = wall
    const { base: _, ...rest } = asked
    // A copy goes on with the version its original has, be there a newer one or not.
    const imageDigest = asked.imageDigest ?? source.shape.imageDigest
    const spec = { ...rest, ...(imageDigest === undefined ? {} : { imageDigest }), isolation: source.isolation === 'container' ? 'container' : 'vm' } as const
    if (spec.egress !== undefined) this.#parts.egress.check(spec.egress)
    if (driver.fork === undefined && workspace !== undefined) {
      // What it shares with its versions is shared with the copy, too.
      const { version } = await workspace.save({ final: false })
      const lease = await this.acquire({ ...spec, base: { storageId: workspace.storageId, version: version.version } }, abort)
      return { lease, withMemory: false }
    }
    const withMemory = driver.fork !== undefined
    const shape = forkShape(source.shape, spec, withMemory)
    let root = spec.workspace === undefined ? undefined : await this.#prepare(wall, { ...spec, diskGb: shape.diskGb }, () => undefined, abort)
    try {
      if (spec.workspace !== undefined) await this.workspaces.overwritten(spec.workspace.storageId)
      if (driver.fork === undefined) root = await this.#copyUpper(driver, source, root)
      const taken =
        driver.fork === undefined
          ? await this.#takeFor(wall, { shape, prepared: root, turn: spec, abort })
          : { sandbox: await driver.fork(source, root?.root.upperDisk), warm: false }
      if (withMemory) pool.adopt(taken.sandbox)
      this.#holdImage(taken.sandbox)
      return { lease: await this.#lease(taken, { spec, shape, prepared: root, begin, resumes: withMemory }), withMemory }
    } catch (error) {
      await root?.release()
      throw error
    }
  }

  async #copyUpper(driver: SandboxDriver, source: Sandbox, prepared: PreparedRoot | undefined): Promise<PreparedRoot> {
    if (driver.copyUpper === undefined) throw new MagsError('not_available', 'sandboxes of this kind cannot be forked')
    const file = await driver.copyUpper(source, prepared?.root.upperDisk)
    return prepared ?? { root: { lowerDisks: [], upperDisk: file }, claimed: Promise.resolve(), release: () => rm(file, { force: true }) }
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

  /** Until all that a sandbox had is free. */
  #untilClosed(sandboxId: string, letGo: () => void) {
    const { closed = Promise.resolve() } = this.#owned.get(sandboxId) ?? {}
    closed.then(letGo)
  }

  /** The version of the image that a sandbox was made with stays as long as it does. */
  #holdImage(sandbox: Sandbox) {
    const { image: name, imageDigest } = sandbox.shape
    const digest = imageDigest ?? this.#parts.images.find(name)?.image.digest
    if (digest === undefined) return
    const letGo = this.#parts.imageUses.hold({ name, digest })
    sandbox.died.then(async () => {
      await sandbox.destroy().catch(() => undefined)
      letGo()
    })
  }

  /** Ends a sandbox. From now on it is none to keep for the next daemon, even if this one stops before the end has come. */
  #end(sandbox: Sandbox) {
    const owned = this.#owned.get(sandbox.id)
    if (owned !== undefined) this.#owned.set(sandbox.id, { ...owned, persistent: false })
    return sandbox.destroy()
  }

  #around(wall: OpenWall, sandbox: Sandbox, workspace: OpenWorkspace | undefined): Surroundings {
    const { pool } = wall
    const egress = this.#parts.egress.of(sandbox)
    const { image, imageDigest } = sandbox.shape
    return {
      environment: this.#parts.images.find(image, imageDigest)?.record.environment,
      workspace,
      egress,
      end: () => this.#end(sandbox),
      onAsleep: (asleep) => {
        egress.rest(asleep)
        pool.rest(sandbox, asleep)
      },
      fork: (spec, abort) => this.#fork(wall, sandbox, workspace, spec, abort),
    }
  }

  async #run({ sandbox, shape, prepared, workspace, policy, addresses, resumes }: Taken, script: ScriptSpec, sink: OutputSink): Promise<RunningSandbox> {
    const begin = performance.now()
    const wall = this.#wall(sandbox.isolation === 'container' ? 'container' : 'vm')
    const { driver } = wall
    try {
      if (script.init) checkBoots(sandbox)
      await workspace?.begin()
      const around = this.#around(wall, sandbox, workspace)
      // What is in a copy already goes on as soon as it is attached.
      if (resumes && policy !== undefined) await around.egress.set(policy)
      const leased = addresses === undefined ? undefined : this.#parts.lease(sandbox, addresses)
      if (resumes) await leased
      const attached = sandbox.attach(shape, driver.rootAt === 'attach' && !resumes ? prepared?.root : undefined, addresses?.ipv6)
      const governed = policy === undefined || resumes ? undefined : around.egress.set(policy)
      // All to their end, whichever fails: what is still being attached could not be given back.
      await Promise.allSettled([attached, prepared?.claimed, governed, leased])
      await attached
      await prepared?.claimed
      await governed
      await leased
      if (resumes) return HostSandbox.resume(sandbox, { stdout: 0, stderr: 0 }, sink, around)
      return await HostSandbox.start(sandbox, script, sink, { attachMs: () => performance.now() - begin, ...around })
    } catch (error) {
      await workspace?.rest().catch(() => undefined)
      await sandbox.destroy()
      // The workspace's own trouble has a code of its own, and so has an image that cannot be booted.
      if (error instanceof MagsError && (error.code === 'workspace_fenced' || error.code === 'not_available' || error.code.startsWith('object_store')))
        throw error
      const words = error instanceof Error ? error.message : String(error)
      throw new MagsError('sandbox_failed', `the sandbox could not be made ready: ${words}`, { cause: error })
    }
  }
}

/** Rejects what a copy cannot have otherwise than its original. */
function forkShape(source: SandboxShape, { image, imageDigest, vcpus, memoryMb, diskGb }: SandboxSpec, withMemory: boolean): SandboxShape {
  const fixed =
    image !== source.image || imageDigest !== source.imageDigest
      ? 'image'
      : !withMemory
        ? undefined
        : vcpus !== source.vcpus
          ? 'number of processors'
          : memoryMb !== source.memoryMb
            ? 'memory'
            : undefined
  if (fixed !== undefined) throw new MagsError('not_available', `a fork has the ${fixed} of the sandbox it is a copy of`)
  return withMemory ? source : { image, ...(imageDigest === undefined ? {} : { imageDigest }), vcpus, memoryMb, diskGb: Math.max(diskGb, source.diskGb) }
}
