import { join } from 'node:path'
import type { MounterClient } from '../../mounter/mounter-client.ts'
import type { SandboxRoot } from '../driver.ts'
import type { DiskHold, DiskMounts } from './disk-mounts.ts'

export interface ContainerRootDeps {
  readonly mounter: MounterClient
  readonly disks: DiskMounts
  /** Layers under all others, topmost first: the image. */
  readonly imageDirs: readonly string[]
  /** Holds the empty upper of its own scratch disk. */
  readonly scratchDir: string
}

/** The root of a container, as far as the container has to do with it. */
export interface LayeredRoot {
  /** Where its upper layer lies, in the mounter's namespace; has `u`. */
  layerDir(): Promise<string>
  /** Lets go of the disks. For a container with no processes left. */
  release(): Promise<void>
}

/** For `attach`. */
export interface ComposedRoot {
  readonly lowerDirs: readonly string[]
  readonly upperDir: string
  readonly volatile: true
}

/**
 * What the root file system of one container is made of, and the disks held for that. All uppers are volatile: what they hold is worth nothing after a power cut, since then the caller discards the disk, too.
 *
 *     empty ──compose──▶ composed ──compose──▶ composed anew ──release──▶ released
 */
export class ContainerRoot implements LayeredRoot {
  readonly #deps: ContainerRootDeps
  readonly #held: DiskHold[] = []
  #upperDir: string | undefined
  #secondDir: string | undefined
  #sweeping: Promise<void> | undefined
  #released = false

  constructor(deps: ContainerRootDeps) {
    this.#deps = deps
  }

  async layerDir(): Promise<string> {
    if (this.#upperDir === undefined) throw new Error('the sandbox has no root yet')
    return this.#upperDir
  }

  /** Layers of the image alone or with a root's disks. May be called a second time for another root, while the first is still in use. */
  async compose(root: SandboxRoot = { lowerDisks: [] }): Promise<ComposedRoot> {
    const lowering = Promise.allSettled(root.lowerDisks.map((file) => this.#hold(file, 'lower')))
    const layersBelow = async () => [...(await lowering).map(settledValue).map((dir) => join(dir, 'u')), ...this.#deps.imageDirs]
    const [upper] = await Promise.allSettled([this.#upper(root, layersBelow)])
    const lowerDirs = await layersBelow()
    this.#upperDir = settledValue(upper)
    return { lowerDirs, upperDir: this.#upperDir, volatile: true }
  }

  async release() {
    this.#released = true
    await this.#sweeping
    await Promise.all(this.#held.splice(0).map((hold) => hold.release()))
    if (this.#secondDir !== undefined) await this.#deps.mounter.resetUpper(this.#secondDir)
    this.#secondDir = undefined
  }

  async #upper({ upperDisk, scope }: SandboxRoot, layersBelow: () => Promise<readonly string[]>): Promise<string> {
    const { mounter, scratchDir } = this.#deps
    if (upperDisk !== undefined) {
      const dir = await this.#hold(upperDisk, 'upper')
      if (scope !== undefined) {
        const isLeft = await mounter.narrowUpper({ dir, folder: scope, lowerDirs: await layersBelow() })
        // What it cannot remove, or has no time for, lies where nobody sees it, until the next one.
        if (isLeft) this.#sweeping = this.#sweep(dir).catch(() => undefined)
        return dir
      }
      // A work folder tells of the mount before, and an overlay would refuse what was volatile there.
      await mounter.resetUpper(dir, { keep: true })
      return dir
    }
    if (this.#upperDir === undefined) return scratchDir
    // The first root lies on `u` and `w` until it has been swapped.
    this.#secondDir = join(scratchDir, 'second')
    await mounter.resetUpper(this.#secondDir)
    return this.#secondDir
  }

  /** A little at a time, so that the disk can be let go of at any moment. */
  async #sweep(dir: string) {
    while (!this.#released && (await this.#deps.mounter.sweepUpper(dir, sweptAtOnce)));
  }

  async #hold(file: string, use: 'upper' | 'lower') {
    const hold = await this.#deps.disks.hold(file, use)
    this.#held.push(hold)
    return hold.dir
  }
}

/** Entries; some tens of milliseconds. */
const sweptAtOnce = 1_000

/** After all of several have settled, so that none is held by nobody. */
function settledValue<T>(result: PromiseSettledResult<T>): T {
  if (result.status === 'rejected') throw result.reason
  return result.value
}
