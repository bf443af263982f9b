import { statfs } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from 'pino'

export interface DiskRoomOptions {
  /** A folder on the disk. */
  readonly dir: string
  readonly logger?: Pick<Logger, 'error' | 'info'>
  /** Free bytes and bytes in all; default by statfs(2). */
  readonly measure?: () => Promise<{ readonly freeBytes: number; readonly sizeBytes: number }>
  /** Between two looks while there is much room, and while there is little; default 1,000 and 100. */
  readonly everyMs?: { readonly calm: number; readonly tight: number }
}

type Listener = (words: string | undefined) => void

const mib = 2 ** 20
/** Under so much the disk is watched closely: nothing writes faster than this between two looks. */
const tightBytes = 4096 * mib

/**
 * Whether the disk that sandboxes' disks lie on has room for what they write. Those are sparse files: what a container writes is in memory first, and what there is no room for afterwards would be lost without a
 * word. So containers are to stand still before it is full. Watched as long as somebody listens.
 *
 *     room ──less than `stopBytes` free──▶ full ──more than `goOnBytes` free──▶ room
 */
export class DiskRoom {
  readonly #options: DiskRoomOptions
  readonly #listeners = new Set<Listener>()
  #words: string | undefined
  #looking = false
  #leastFree = Number.POSITIVE_INFINITY

  constructor(options: DiskRoomOptions) {
    this.#options = options
  }

  /** Why nothing should be written, and what to do. */
  get words(): string | undefined {
    return this.#words
  }

  /** Hears each change; at once when it is full. Returns how to stop. */
  watch(listener: Listener): () => void {
    this.#listeners.add(listener)
    if (this.#words !== undefined) listener(this.#words)
    void this.#look()
    return () => this.#listeners.delete(listener)
  }

  /** Whether there was so little room since somebody began to listen that something may have been lost. */
  get wasTight(): boolean {
    return this.#leastFree < tightBytes
  }

  async #look() {
    if (this.#looking) return
    this.#looking = true
    const { everyMs = { calm: 1000, tight: 100 } } = this.#options
    while (this.#listeners.size > 0) {
      const freeBytes = await this.#measure().catch(() => Number.POSITIVE_INFINITY)
      await delay(freeBytes < tightBytes ? everyMs.tight : everyMs.calm, undefined, { ref: false })
    }
    this.#looking = false
  }

  async #measure(): Promise<number> {
    const { measure = () => measureDisk(this.#options.dir), dir, logger } = this.#options
    const { freeBytes, sizeBytes } = await measure()
    this.#leastFree = Math.min(this.#leastFree, freeBytes)
    const { stopBytes, goOnBytes } = roomLimits(sizeBytes)
    const free = `${(freeBytes / mib).toFixed(0)} MB free in ${dir}`
    if (this.#words === undefined && freeBytes < stopBytes) {
      logger?.error(`the disk is full (${free}): containers stand still until there are ${(goOnBytes / mib).toFixed(0)} MB`)
      this.#tell("the server's disk is full; free some space on it (mags doctor has the figures)")
    } else if (this.#words !== undefined && freeBytes > goOnBytes) {
      logger?.info(`there is room on the disk again (${free}): containers go on`)
      this.#tell(undefined)
    }
    return freeBytes
  }

  #tell(words: string | undefined) {
    this.#words = words
    for (const listener of this.#listeners) listener(words)
  }
}

/** What has to be free, by the size of the disk. */
export function roomLimits(sizeBytes: number): { readonly stopBytes: number; readonly goOnBytes: number } {
  const stopBytes = Math.min(Math.max(sizeBytes * 0.02, 24 * mib), 128 * mib)
  return { stopBytes, goOnBytes: stopBytes * 1.5 }
}

async function measureDisk(dir: string) {
  const { bavail, blocks, bsize } = await statfs(dir)
  return { freeBytes: bavail * bsize, sizeBytes: blocks * bsize }
}
