import { type HostImages, type ImageInfo, type ImageOrigin, MagsError } from '@mags/protocol'
import type { Logger } from 'pino'
import type { SandboxDriver, SandboxShape } from '../drivers/driver.ts'
import type { WarmPool } from '../pool/warm-pool.ts'
import type { DefaultImage } from './default-image.ts'
import { findForeignUse } from './foreign-uses.ts'
import type { CataloguedImage, ImageCatalogue } from './image-catalogue.ts'
import { checkImageName } from './image-name.ts'
import type { ImageStore } from './image-store.ts'
import type { ImageUses } from './image-uses.ts'
import { importLimits } from './import/import-limits.ts'
import { ImportMemory, memoryPool } from './import/import-memory.ts'
import { importWork } from './import/import-work.ts'
import { type MakeImageDeps, makeImage } from './make-image.ts'
import { publishImage } from './publish-image.ts'

export interface MachineImagesDeps extends MakeImageDeps {
  readonly catalogue: ImageCatalogue
  readonly store: ImageStore
  readonly uses: ImageUses
  readonly default: DefaultImage
  /** What a sandbox has that asks for nothing, but for its image. */
  readonly defaultShape: Omit<SandboxShape, 'image' | 'imageDigest'>
  readonly walls: readonly { readonly driver: Pick<SandboxDriver, 'prepare' | 'forgetImage'>; readonly pool: Pick<WarmPool, 'changeDefault' | 'retire'> }[]
  readonly maxGb: number
  /** This daemon's, beside those of others. */
  readonly runDir: string
  readonly dataDir: string
  readonly logger: Pick<Logger, 'info' | 'warn'>
}

/** Another daemon, or `mags setup`, may have made a version. */
const lookEveryMs = 10_000

/**
 * The images of this machine.
 *
 *     opened ──serve──▶ serving ──close──▶ closed
 *
 * While serving it looks for versions that others made, keeps the pool to the newest, and makes templates for virtual machines in the background.
 */
export class MachineImages implements HostImages {
  readonly #deps: MachineImagesDeps
  readonly #closing = new AbortController()
  readonly #running = new Set<Promise<unknown>>()
  readonly #memory = memoryPool()
  /** Newest digest of each name as it was last acted upon. */
  #known: Record<string, string>
  #changing: Promise<unknown> = Promise.resolve()
  #preparing: Promise<void> = Promise.resolve()
  #timer: NodeJS.Timeout | undefined

  constructor(deps: MachineImagesDeps) {
    this.#deps = deps
    this.#known = deps.catalogue.digests()
  }

  get defaultImage() {
    return this.#deps.default.name
  }

  /** Begins what is done in the background. */
  serve() {
    const look = () =>
      this.#refresh().catch((error: unknown) => this.#deps.logger.warn({ err: error }, 'the images of this machine could not be looked through'))
    this.#timer = setInterval(look, lookEveryMs)
    this.#timer.unref()
  }

  async list(): Promise<readonly ImageInfo[]> {
    await this.#refresh()
    return this.#deps.catalogue.all().map(infoOf)
  }

  async find(name: string, digest?: string): Promise<ImageInfo | undefined> {
    await this.#refresh()
    const found = this.#deps.catalogue.find(name, digest)
    return found === undefined ? undefined : infoOf(found)
  }

  async create(name: string, origin: ImageOrigin, onProgress: (words: string) => void, abort?: AbortSignal): Promise<ImageInfo> {
    checkImageName(name)
    const { catalogue, store, maxGb } = this.#deps
    const ended = AbortSignal.any([this.#closing.signal, ...(abort === undefined ? [] : [abort])])
    return await this.#track(async () => {
      ended.throwIfAborted()
      await using undo = new AsyncDisposableStack()
      const dir = await store.workDir()
      undo.defer(() => store.discard(dir))
      const memory = undo.use(new ImportMemory(this.#memory))
      const work = importWork(dir, importLimits(maxGb), onProgress, ended, memory)
      const made = await makeImage(this.#deps, name, origin, work).catch((error: unknown) => {
        ended.throwIfAborted()
        throw explained(error, maxGb)
      })
      return await this.#alone(async () => {
        await publishImage(store.dir, made.dir, made.record, work)
        catalogue.forget(name, made.record.digest)
        await this.#refresh()
        return { ...made.record, current: true }
      })
    })
  }

  async remove(name: string, digest?: string): Promise<void> {
    await this.#track(() =>
      this.#alone(async () => {
        const { catalogue } = this.#deps
        await catalogue.reload()
        const versions = catalogue.all().filter(({ image }) => image.name === name && (digest === undefined || image.digest === digest))
        if (versions.length === 0) throw new MagsError('not_found', `no image ${name}${digest === undefined ? '' : ` with digest ${digest}`} on this server`)
        if (name === this.defaultImage && versions.some(({ current }) => current))
          throw new MagsError('image_in_use', `image ${name} is what jobs get that name none; make another the default first`)
        for (const version of versions) await this.#checkUnused(version)
        for (const version of versions.toReversed()) await this.#withdraw(version)
      }),
    )
  }

  async setDefault(name: string): Promise<void> {
    const { catalogue, default: defaultImage } = this.#deps
    await catalogue.load(name)
    const before = defaultImage.name
    await defaultImage.set(name)
    if (before === name) return
    this.#stockDefault()
    const { image } = catalogue.find(before) ?? {}
    if (image !== undefined) this.#retire((shape) => shape.image === before)
  }

  /** Ends imports that run, and the background. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    this.#closing.abort(new MagsError('not_available', 'the server is stopping; make the image again when it is back'))
    await Promise.allSettled([...this.#running, this.#changing])
  }

  /** Settles when nothing is being made or removed, in the background either; for tests. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running)
    await this.#preparing
  }

  async #refresh(): Promise<void> {
    const { catalogue } = this.#deps
    await catalogue.reload()
    const now = catalogue.digests()
    const changed = Object.entries(now).filter(([name, digest]) => this.#known[name] !== digest)
    this.#known = now
    for (const [name, digest] of changed) {
      if (name === this.defaultImage) this.#stockDefault()
      this.#retire((shape) => shape.image === name && shape.imageDigest !== digest)
      this.#prepareTemplates(name, digest)
    }
  }

  #stockDefault() {
    const { walls, catalogue, defaultShape } = this.#deps
    const image = this.defaultImage
    const found = catalogue.find(image)
    if (found === undefined) return
    for (const { pool } of walls) pool.changeDefault({ ...defaultShape, image, imageDigest: found.image.digest })
  }

  #retire(matches: (shape: SandboxShape) => boolean): Promise<unknown> {
    return Promise.allSettled(this.#deps.walls.map(({ pool }) => pool.retire(matches)))
  }

  /** One after the other. The pool makes those of the default by itself. */
  #prepareTemplates(name: string, imageDigest: string) {
    const { walls, defaultShape, logger } = this.#deps
    if (name === this.defaultImage) return
    this.#preparing = this.#preparing.then(async () => {
      for (const { driver } of walls) {
        if (this.#closing.signal.aborted || driver.prepare === undefined) continue
        await driver
          .prepare({ ...defaultShape, image: name, imageDigest })
          .catch((error: unknown) =>
            logger.warn(
              { err: error, image: name, digest: imageDigest },
              'a template for virtual machines of an image could not be made; the first of them will wait for it',
            ),
          )
        // It may have been removed meanwhile.
        if (this.#deps.catalogue.find(name, imageDigest) === undefined) await driver.forgetImage?.(imageDigest)
      }
    })
  }

  async #checkUnused({ image }: CataloguedImage): Promise<void> {
    const count = this.#deps.uses.count(image)
    const foreign = count > 0 ? undefined : await findForeignUse(image, this.#deps)
    if (count === 0 && foreign === undefined) return
    const who = foreign ?? (count === 1 ? 'a sandbox' : `${count} sandboxes`)
    throw new MagsError(
      'image_in_use',
      `${who} of this machine still ${count > 1 ? 'have' : 'has'} version ${image.digest} of image ${image.name}; stop the jobs that run on it first`,
    )
  }

  async #withdraw({ image, current }: CataloguedImage): Promise<void> {
    const { catalogue, store, uses, walls, logger } = this.#deps
    // From here on nobody gets it; whoever got it a moment ago is counted.
    const reveal = catalogue.hide(image.name, image.digest)
    let grave: string
    try {
      if (uses.count(image) > 0) throw new MagsError('image_in_use', `a sandbox of this machine has just got version ${image.digest} of image ${image.name}`)
      await this.#retire((shape) => shape.image === image.name && shape.imageDigest === image.digest)
      const next = catalogue.all().find((other) => other.image.name === image.name)?.image
      grave = await store.withdraw(image, next, current)
    } finally {
      reveal()
      await this.#refresh()
    }
    const removing = store.discard(grave)
    const forgetting = Promise.all(walls.map(async ({ driver }) => await driver.forgetImage?.(image.digest)))
    for (const late of [removing, forgetting])
      this.#track<unknown>(() => late).catch((error: unknown) =>
        logger.warn({ err: error, image: image.name }, 'what is left of a removed image could not be deleted'),
      )
  }

  /** Changes to the folder, one after the other. */
  #alone<T>(change: () => Promise<T>): Promise<T> {
    const changed = this.#changing.then(change)
    this.#changing = changed.catch(() => undefined)
    return changed
  }

  async #track<T>(start: () => Promise<T>): Promise<T> {
    const running = start()
    this.#running.add(running)
    try {
      return await running
    } finally {
      this.#running.delete(running)
    }
  }
}

function infoOf({ record, current }: CataloguedImage): ImageInfo {
  return { ...record, current }
}

function explained(error: unknown, maxGb: number): unknown {
  const { code } = (error ?? {}) as NodeJS.ErrnoException
  if (error instanceof MagsError || code !== 'ENOSPC') return error
  return new MagsError(
    'too_large',
    `the disk of this server is full; an import needs up to three times the size of the image (at most ${maxGb} GB, MAGS_IMAGE_MAX_GB)`,
    { cause: error },
  )
}
