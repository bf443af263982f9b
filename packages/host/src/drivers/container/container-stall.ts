import type { Logger } from 'pino'
import type { CgroupTree } from '../../cgroups/cgroup-tree.ts'
import type { DiskRoom } from '../disk-room.ts'

export interface ContainerStallDeps {
  readonly cgroups: Pick<CgroupTree, 'freeze' | 'thaw'>
  readonly logger: Pick<Logger, 'warn'>
  /** Without it nothing ever stalls. */
  readonly room?: Pick<DiskRoom, 'watch'>
  readonly cgroup: string
  readonly sandbox: string
  /** Whether it stands still on purpose as well. */
  readonly stands: () => boolean
}

/**
 * A container stands still while the host's disk is full, because what it wrote would be lost.
 *
 *     not watched ──begin──▶ goes on ◄──full, room──▶ stalled
 *                               └─────────end──────────┴──▶ not watched (whoever ends it thaws it)
 */
export class ContainerStall {
  readonly #deps: ContainerStallDeps
  readonly #listeners = new Set<(words: string | undefined) => void>()
  #unwatch: () => void = () => undefined
  #words: string | undefined
  #change: Promise<unknown> = Promise.resolve()

  constructor(deps: ContainerStallDeps) {
    this.#deps = deps
  }

  get words(): string | undefined {
    return this.#words
  }

  /** Hears each change; at once when it stands still. */
  watch(listener: (words: string | undefined) => void): void {
    this.#listeners.add(listener)
    if (this.#words !== undefined) listener(this.#words)
  }

  begin(): void {
    this.#unwatch()
    this.#unwatch = this.#deps.room?.watch((words) => this.#set(words)) ?? (() => undefined)
  }

  /** Settles once nothing freezes it any more: what is being done of that would outlive who thaws it. */
  async end(): Promise<void> {
    this.#unwatch()
    this.#words = undefined
    this.#listeners.clear()
    await this.#change
  }

  /** For who had it stand still on purpose: it goes on, unless there is no room. */
  async thaw(): Promise<void> {
    const { cgroups, cgroup } = this.#deps
    if (this.#words === undefined) await cgroups.thaw(cgroup)
  }

  #set(words: string | undefined) {
    if (words === this.#words) return
    this.#words = words
    const { cgroups, cgroup, stands, logger, sandbox } = this.#deps
    // One after the other, each to what is wanted by then.
    this.#change = this.#change
      .then(async () => {
        if (this.#words !== undefined) await cgroups.freeze(cgroup)
        else if (words === undefined && !stands()) await cgroups.thaw(cgroup)
      })
      .catch((err: unknown) => logger.warn({ err, sandbox }, 'a sandbox could not be held or let go on although the disk is full or has room again'))
    for (const listener of this.#listeners) listener(words)
  }
}
