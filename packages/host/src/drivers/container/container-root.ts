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
    const [upper] = await Promise.allSettled([this.#upper(root)])
    const lowers = (await lowering).map(settledValue)
    this.#upperDir = settledValue(upper)
    return { lowerDirs: [...lowers.map((dir) => join(dir, 'u')), ...this.#deps.imageDirs], upperDir: this.#upperDir, volatile: true }
  }

  async release() {
    await Promise.all(this.#held.splice(0).map((hold) => hold.release()))
    if (this.#secondDir !== undefined) await this.#deps.mounter.resetUpper(this.#secondDir)
    this.#secondDir = undefined
  }

  async #upper({ upperDisk }: SandboxRoot): Promise<string> {
    const { mounter, scratchDir } = this.#deps
    if (upperDisk !== undefined) {
      const dir = await this.#hold(upperDisk, 'upper')
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

  async #hold(file: string, use: 'upper' | 'lower') {
    const hold = await this.#deps.disks.hold(file, use)
    this.#held.push(hold)
    return hold.dir
  }
}

/** After all of several have settled, so that none is held by nobody. */
function settledValue<T>(result: PromiseSettledResult<T>): T {
  if (result.status === 'rejected') throw result.reason
  return result.value
}
