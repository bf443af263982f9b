import { join } from 'node:path'
import type { Logger } from 'pino'
import type { SandboxRoot } from '../driver.ts'
import type { LayeredRoot } from './container-root.ts'
import type { DiskHold, DiskMounts } from './disk-mounts.ts'

export interface AdoptedRootDeps {
  readonly disks: DiskMounts
  /** What it was given, if anything. */
  readonly root: SandboxRoot | undefined
  readonly scratchFile: string
  /** Where on the scratch disk its upper layer is, if it is there: '.' or a folder. */
  readonly scratchFolder: string
  readonly logger: Logger
}

/** The root of a container that was made by an earlier daemon. Its overlay goes on without us; here its disks come to light again in the new mounter. */
export class AdoptedRoot implements LayeredRoot {
  readonly #deps: AdoptedRootDeps
  readonly #held: DiskHold[] = []
  #upper: Promise<DiskHold> | undefined

  constructor(deps: AdoptedRootDeps) {
    this.#deps = deps
  }

  /** Holds the disks, so that nobody else has them in a way that shuts us out. A disk that cannot be mounted does not stop the sandbox; reading its layer will say why. */
  async retake() {
    const { disks, root, logger } = this.#deps
    const lowers = (root?.lowerDisks ?? []).map(async (file) => this.#held.push(await disks.hold(file, 'lower')))
    const upper = root?.upperDisk === undefined ? [] : [this.#holdUpper()]
    for (const result of await Promise.allSettled([...lowers, ...upper])) {
      if (result.status === 'rejected') logger.warn({ err: result.reason }, 'a disk of a sandbox of the last run cannot be mounted')
    }
  }

  async layerDir(): Promise<string> {
    const { root, scratchFolder } = this.#deps
    const { dir } = await this.#holdUpper()
    return root?.upperDisk === undefined ? join(dir, scratchFolder) : dir
  }

  async release() {
    await Promise.all(this.#held.splice(0).map((hold) => hold.release()))
  }

  #holdUpper(): Promise<DiskHold> {
    const hold = async () => {
      const held = await this.#deps.disks.hold(this.#deps.root?.upperDisk ?? this.#deps.scratchFile, 'upper')
      this.#held.push(held)
      return held
    }
    this.#upper ??= hold().catch((error: unknown) => {
      this.#upper = undefined
      throw error
    })
    return this.#upper
  }
}
