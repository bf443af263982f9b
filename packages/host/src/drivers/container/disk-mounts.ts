import { mkdir, readdir, rmdir, stat } from 'node:fs/promises'
import { constants } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { MagsError } from '@mags/protocol'
import type { Logger } from 'pino'
import { type MounterClient, MounterError } from '../../mounter/mounter-client.ts'

export interface DiskMountsDeps {
  readonly mounter: MounterClient
  /** Holds the mount points; this daemon's own. */
  readonly dir: string
  readonly logger: Logger
  /** Most disks that stay mounted unused; default 64. */
  readonly keepIdle?: number
  /** How long they do; default one minute. */
  readonly idleMs?: number
}

/** As the upper layer, of one sandbox at a time; or as one below, of any number. */
export type DiskUse = 'upper' | 'lower'

export interface DiskHold {
  /** Where it is mounted, in the mounter's namespace; has `u`. */
  readonly dir: string
  /** Once; more often does nothing. An upper disk is not mounted any more when this settles: its file is complete, and may be copied, made larger or removed. */
  release(): Promise<void>
}

interface Mount {
  readonly key: string
  readonly dir: string
  readonly use: DiskUse
  readonly mounted: Promise<void>
  users: number
  idle?: NodeJS.Timeout
  leaving?: Promise<void>
}

/** A worker that was just let go of may still have its folder open. */
const unmountTries = 40
const unmountPauseMs = 25

/**
 * The disks of workspaces that are mounted by the mounter, counted. Lower ones stay mounted for a while when nobody uses them any more: they never change, and the next fork or read-only run comes soon as a
 * rule. A disk is known by the inode of its file, not by its name.
 *
 *     absent ──hold──▶ used ──last release──▶ idle (lower) ──time, number──▶ absent
 *                       ▲  └── last release (upper) ──▶ absent
 *                       └───────── hold ─────────┘
 */
export class DiskMounts {
  readonly #deps: DiskMountsDeps
  readonly #mounts = new Map<string, Mount>()

  constructor(deps: DiskMountsDeps) {
    this.#deps = deps
  }

  /** Rejects with MagsError 'sandbox_failed' when it cannot be mounted, and with an Error when it is in use in a way that shuts this one out. */
  async hold(file: string, use: DiskUse): Promise<DiskHold> {
    const mount = await this.#take(await identify(file), file, use)
    let released: Promise<void> | undefined
    const release = () => {
      released ??= this.#release(mount)
      return released
    }
    try {
      await mount.mounted
    } catch (error) {
      mount.users--
      throw new MagsError('sandbox_failed', `the disk ${file} cannot be mounted: ${(error as Error).message}`, { cause: error })
    }
    return { dir: mount.dir, release }
  }

  /** Removes mount points of an earlier daemon. */
  async sweep() {
    for (const name of await readdir(this.#deps.dir).catch(() => [])) {
      if (!this.#mounts.has(name)) await rmdir(join(this.#deps.dir, name)).catch(() => undefined)
    }
  }

  /** Lets go of all that are idle. */
  async close() {
    await Promise.all([...this.#mounts.values()].filter(({ users }) => users === 0).map((mount) => this.#leave(mount)))
  }

  /** Its mount, with one more user: looked up and counted in one go, so that two who want it for themselves cannot both have it. */
  async #take(key: string, file: string, use: DiskUse): Promise<Mount> {
    for (;;) {
      const mount = this.#mounts.get(key) ?? this.#mount(key, file, use)
      if (mount.leaving === undefined && mount.use === use && (use === 'lower' || mount.users === 0)) {
        mount.users++
        clearTimeout(mount.idle)
        return mount
      }
      if (mount.users > 0) throw new Error(`the disk ${file} is the ${mount.use} layer of a sandbox; it cannot be the ${use} layer of another one`)
      await this.#leave(mount)
      if (this.#mounts.get(key) === mount && mount.use !== use) throw new Error(`the disk ${file} is busy`)
    }
  }

  #mount(key: string, file: string, use: DiskUse): Mount {
    const dir = join(this.#deps.dir, key)
    const mounting = async () => {
      await mkdir(dir, { recursive: true, mode: 0o700 })
      await this.#deps.mounter.mountImage(file, dir, { readOnly: use === 'lower' })
    }
    const mount: Mount = { key, dir, use, mounted: mounting(), users: 0 }
    this.#mounts.set(key, mount)
    mount.mounted.catch(async () => {
      this.#mounts.delete(key)
      await rmdir(dir).catch(() => undefined)
    })
    return mount
  }

  async #release(mount: Mount) {
    mount.users--
    if (mount.users > 0) return
    if (mount.use === 'upper') return await this.#leave(mount)
    const { keepIdle = 64, idleMs = 60_000 } = this.#deps
    mount.idle = setTimeout(() => this.#leave(mount), idleMs).unref()
    // A map is in the order of insertion: the one idle for longest comes first.
    this.#mounts.delete(mount.key)
    this.#mounts.set(mount.key, mount)
    const idle = [...this.#mounts.values()].filter(({ users, leaving }) => users === 0 && leaving === undefined)
    for (const old of idle.slice(0, Math.max(0, idle.length - keepIdle))) void this.#leave(old)
  }

  #leave(mount: Mount): Promise<void> {
    clearTimeout(mount.idle)
    const leave = async () => {
      try {
        await this.#unmount(mount.dir)
        this.#mounts.delete(mount.key)
        await rmdir(mount.dir)
      } catch (error) {
        this.#deps.logger.warn({ err: error }, 'a disk stays mounted')
      } finally {
        delete mount.leaving
      }
    }
    mount.leaving ??= leave()
    return mount.leaving
  }

  async #unmount(dir: string) {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#deps.mounter.unmount(dir)
      } catch (error) {
        const busy = error instanceof MounterError && error.errno === constants.errno.EBUSY
        if (!busy || attempt === unmountTries) throw error
        await delay(unmountPauseMs)
      }
    }
  }
}

async function identify(file: string) {
  const found = await stat(file, { bigint: true }).catch((error: NodeJS.ErrnoException) => {
    throw new MagsError('sandbox_failed', `there is no disk ${file} (${error.code})`, { cause: error })
  })
  return `${found.dev}-${found.ino}`
}
