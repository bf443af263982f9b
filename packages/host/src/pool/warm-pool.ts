import { MagsError } from '@mags/protocol'
import type { Sandbox, SandboxDriver, SandboxRoot, SandboxShape } from '../drivers/driver.ts'
import type { Headroom } from './headroom.ts'
import { HeldPlaces } from './held-places.ts'
import { type PoolClock, systemClock } from './pool-clock.ts'
import { keyOf, type Shelf } from './shelf.ts'
import { Shelves } from './shelves.ts'
import { type Turn, type Waiter, WaitingLine } from './waiting-line.ts'

export interface WarmPoolOptions {
  /** What is kept ready without being asked. */
  readonly defaultShape: SandboxShape
  /** Most sandboxes in all, idle and busy; 0 is no cap: then `headroom` decides. */
  readonly maxSize: number
  readonly headroom: Headroom
  /** Idle sandboxes above the minimum go after this long unused. */
  readonly idleTtlMs: number
  /** How many are made at once. */
  readonly createConcurrency: number
  /** A take fails with the driver's last words when nothing but failures came in this time. While there is merely no room it goes on waiting. */
  readonly acquireTimeoutMs: number
  readonly clock?: PoolClock
  readonly onFailure?: (error: unknown) => void
}

export interface TakenSandbox {
  readonly sandbox: Sandbox
  /** It was there at once. */
  readonly warm: boolean
}

/** A refill right behind a take would fight with the job just started for the processor: it waits for this long a silence, unless stocks are low. */
const refillQuietMs = 15
/** When there was no headroom, it is looked for again after this. */
const headroomRetryMs = 500
const firstRetryMs = 100
/** A pool that may have so many keeps a place for newcomers. */
const leastToKeepOne = 4
const longestRetryMs = 10_000

/**
 * Sandboxes booted ahead. A take hands out a warm one at once; everything else here happens beside the request's path.
 *
 *     (none) ──create──▶ idle ──take──▶ busy ──ended──▶ (none)
 *                         │              busy ──rest(true)──▶ asleep ──rest(false)──▶ busy
 *                         └──unused for idleTtl, died, closed──▶ (none)
 *
 * One shelf per warm shape; only the default shape is stocked without being asked. A taken sandbox never comes back.
 */
export class WarmPool {
  readonly #driver: SandboxDriver
  readonly #options: WarmPoolOptions
  readonly #clock: PoolClock
  readonly #shelves = new Shelves()
  readonly #waiting = new WaitingLine()
  readonly #roomWaiters: (() => void)[] = []
  /** With whose they are. */
  readonly #busy = new Map<Sandbox, string>()
  readonly #held = new HeldPlaces()
  readonly #asleep = new Map<Sandbox, string>()
  readonly #pending = new Set<Promise<void>>()
  #defaultShape: SandboxShape
  #minSize = 0
  #creating = 0
  #takes = 0
  #hits = 0
  #lastTake = Number.NEGATIVE_INFINITY
  #failures = 0
  #lastFailure: string | undefined
  #cancelRefill: (() => void) | undefined
  #cancelDrop: (() => void) | undefined
  #cancelRetry: (() => void) | undefined
  #state: 'new' | 'open' | 'closed' = 'new'

  constructor(driver: SandboxDriver, options: WarmPoolOptions) {
    this.#driver = driver
    this.#options = options
    this.#defaultShape = options.defaultShape
    this.#clock = options.clock ?? systemClock
  }

  /** Keeps at least so many of the default shape idle; 0 until called. */
  stock(minSize: number) {
    this.#minSize = minSize
    const shelf = this.#shelves.of(this.#driver.warmShape(this.#defaultShape))
    shelf.target = Math.max(shelf.target, minSize)
  }

  /** From now on this shape is kept ready without being asked; what is idle of the old one goes when it is not used. */
  changeDefault(shape: SandboxShape) {
    this.#defaultShape = shape
    this.stock(this.#minSize)
    this.#refill()
    this.#planDrop()
  }

  /** Destroys what is idle of some shapes, and what is being made of them once it is there unless somebody waits for it. Settles when the idle ones are gone. */
  async retire(matches: (shape: SandboxShape) => boolean): Promise<void> {
    await Promise.allSettled(this.#shelves.retire(matches).map((sandbox) => sandbox.destroy()))
    this.#refill()
  }

  /** Starts to fill. Before that nothing is made, so that recovery has the machine for itself. */
  open() {
    this.#state = 'open'
    this.#refill()
  }

  /** A sandbox that an earlier daemon started counts as busy. */
  adopt(sandbox: Sandbox) {
    this.#markBusy(sandbox, '')
  }

  /** A busy one fell asleep, or is awake again. Asleep it makes room for another; its memory is what `headroom` sees. */
  rest(sandbox: Sandbox, asleep: boolean) {
    const [from, to] = asleep ? [this.#busy, this.#asleep] : [this.#asleep, this.#busy]
    const share = from.get(sandbox)
    if (share === undefined) return
    from.delete(sandbox)
    to.set(sandbox, share)
    if (!asleep) return this.#held.add(share)
    this.#held.remove(share)
    this.#roomMade()
  }

  /**
   * Takes a sandbox for this shape; of those who wait, those with different shares get theirs in turn. Who has some already leaves the last place of a pool with a cap free, as long as somebody has none. Rejects with `abort.reason` when aborted while waiting, and with MagsError 'sandbox_failed' when none came in time.
   */
  take(shape: SandboxShape, abort?: AbortSignal, { share = '', shares = 0 }: Turn = {}): Promise<TakenSandbox> {
    abort?.throwIfAborted()
    this.#takes++
    this.#lastTake = this.#clock.now()
    const shelf = this.#shelves.of(this.#driver.warmShape(shape))
    const warm = this.#mayHold({ share, shares }) ? shelf.idle.pop() : undefined
    if (warm !== undefined) {
      this.#hits++
      this.#waiting.noteServed(share)
      this.#markBusy(warm.sandbox, share)
      this.#refillSoon()
      return Promise.resolve({ sandbox: warm.sandbox, warm: true })
    }
    shelf.target = Math.max(shelf.target, this.#minSize) + 1
    return this.#wait(shelf.shape, abort, { share, shares }).then((sandbox) => ({ sandbox, warm: false }))
  }

  /** Makes one for a root of its own; waits while the pool is at its cap, or has no more places than are left free. Rejects as `take` does. */
  async takeNew(shape: SandboxShape, root: SandboxRoot, abort?: AbortSignal, { share = '', shares = 0 }: Turn = {}): Promise<TakenSandbox> {
    this.#takes++
    while (!this.#mayHold({ share, shares }) || !this.#hasRoom()) {
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      const onAbort = () => reject(abort?.reason)
      abort?.addEventListener('abort', onAbort, { once: true })
      this.#roomWaiters.push(resolve)
      if (this.#mayHold({ share, shares })) this.#giveUpIdle()
      await promise.finally(() => abort?.removeEventListener('abort', onAbort))
    }
    abort?.throwIfAborted()
    this.#creating++
    this.#held.add(share)
    try {
      const sandbox = await this.#driver.create(shape, root)
      this.#markBusy(sandbox, share)
      return { sandbox, warm: false }
    } catch (error) {
      if (error instanceof MagsError) throw error
      throw new MagsError(
        'sandbox_failed',
        `no sandbox could be made: ${error instanceof Error ? error.message : String(error)}; 'mags doctor' checks this machine`,
        { cause: error },
      )
    } finally {
      this.#creating--
      this.#held.remove(share)
      this.#announceRoom()
    }
  }

  status() {
    return {
      idle: this.#shelves.idle,
      busy: this.#busy.size,
      sleeping: this.#asleep.size,
      creating: this.#creating,
      waiting: this.#waiting.length,
      takes: this.#takes,
      hits: this.#hits,
      ...(this.#lastFailure === undefined ? {} : { lastFailure: this.#lastFailure }),
    }
  }

  /** Destroys what is idle and waits for what is being made. Busy ones belong to their jobs. */
  async close() {
    this.#state = 'closed'
    this.#cancelRefill?.()
    this.#cancelDrop?.()
    this.#cancelRetry?.()
    await Promise.allSettled([...this.#shelves.retire(() => true).map((sandbox) => sandbox.destroy()), ...this.#pending])
  }

  #wait(shape: SandboxShape, abort: AbortSignal | undefined, turn: Pick<Waiter, 'share' | 'shares'>): Promise<Sandbox> {
    const { promise, resolve, reject } = Promise.withResolvers<Sandbox>()
    const waiter: Waiter = { key: keyOf(shape), shape, ...turn, resolve }
    this.#waiting.add(waiter)
    const leave = (error: unknown) => {
      this.#waiting.remove(waiter)
      reject(error)
    }
    // Waiting for room has no end here; waiting for a driver that only fails has.
    const check = () => {
      if (this.#lastFailure === undefined) cancelCheck = this.#clock.after(this.#options.acquireTimeoutMs, check)
      else leave(this.#cannotMake(this.#lastFailure))
    }
    let cancelCheck = this.#clock.after(this.#options.acquireTimeoutMs, check)
    const onAbort = () => leave(abort?.reason)
    abort?.addEventListener('abort', onAbort, { once: true })
    this.#refill()
    return promise.finally(() => {
      cancelCheck()
      abort?.removeEventListener('abort', onAbort)
    })
  }

  #hasRoom() {
    return this.#options.maxSize === 0 || this.#total() < this.#options.maxSize
  }

  /** Whether this share may have one more: the last place is for those who have none, as long as there are such. A small pool keeps none. */
  #mayHold({ share, shares }: Pick<Waiter, 'share' | 'shares'>) {
    const { maxSize } = this.#options
    if (maxSize < leastToKeepOne || this.#held.of(share) === 0 || this.#held.shares >= shares) return true
    return this.#held.total < maxSize - 1
  }

  #total() {
    return this.#busy.size + this.#creating + this.#shelves.idle
  }

  #giveUpIdle() {
    this.#shelves
      .giveUp()
      ?.destroy()
      .finally(() => this.#announceRoom())
  }

  #announceRoom() {
    for (const resolve of this.#roomWaiters.splice(0)) resolve()
  }

  #cannotMake(lastFailure: string) {
    const seconds = this.#options.acquireTimeoutMs / 1000
    return new MagsError('sandbox_failed', `no sandbox could be made within ${seconds} s: ${lastFailure}; 'mags doctor' checks this machine`)
  }

  #markBusy(sandbox: Sandbox, share: string) {
    this.#busy.set(sandbox, share)
    this.#held.add(share)
    sandbox.died.then(() => {
      if (this.#busy.delete(sandbox)) this.#held.remove(share)
      this.#asleep.delete(sandbox)
      this.#roomMade()
    })
  }

  #roomMade() {
    this.#announceRoom()
    this.#refillSoon()
  }

  /** One refill is planned at a time; the plan moves back while takes keep coming and stocks last. */
  #refillSoon() {
    if (this.#state !== 'open' || this.#cancelRefill !== undefined) return
    this.#cancelRefill = this.#clock.after(refillQuietMs / 3, () => {
      this.#cancelRefill = undefined
      const quiet = this.#clock.now() - this.#lastTake >= refillQuietMs
      const low = [...this.#shelves].some((shelf) => shelf.idle.length + shelf.creating < shelf.target / 2)
      if (quiet || low || this.#waiting.length > 0) this.#refill()
      else this.#refillSoon()
    })
  }

  #refill() {
    if (this.#state !== 'open') return
    this.#dropUnused()
    while (this.#creating < this.#options.createConcurrency) {
      const shelf = this.#nextToMake()
      if (shelf === undefined) break
      const making = this.#make(shelf)
      this.#pending.add(making)
      making.finally(() => this.#pending.delete(making))
    }
    const short = this.#waiting.length > 0 || [...this.#shelves].some((shelf) => shelf.idle.length < shelf.target)
    if (short && this.#creating === 0 && this.#failures === 0) {
      this.#cancelRetry ??= this.#clock.after(headroomRetryMs, () => {
        this.#cancelRetry = undefined
        this.#refill()
      })
    }
  }

  /** Waiters first, in turn; then the emptiest shelf below its target. */
  #nextToMake(): Shelf | undefined {
    if (this.#failures > 0 && this.#creating > 0) return undefined
    const total = this.#total()
    if (this.#options.maxSize > 0 && total >= this.#options.maxSize) {
      this.#makeRoom()
      return undefined
    }
    const served = new Map<string, number>()
    for (const waiter of this.#waiters()) {
      const shelf = this.#shelves.of(waiter.shape)
      const before = served.get(waiter.key) ?? 0
      if (before >= shelf.creating) return total === 0 || this.#options.headroom.forJob() ? shelf : undefined
      served.set(waiter.key, before + 1)
    }
    const [worst] = this.#shelves.short
    if (worst === undefined) return undefined
    const stocked = worst.idle.length + worst.creating
    return stocked < this.#minSize || this.#options.headroom.forStock() ? worst : undefined
  }

  /** Those who may have one now, in turn. */
  #waiters(): Waiter[] {
    return this.#waiting.inTurn().filter((waiter) => this.#mayHold(waiter))
  }

  /** At the cap, a waiter for one shape may need an idle sandbox of another to go. */
  #makeRoom() {
    const [waiter] = this.#waiters()
    if (waiter === undefined) return
    this.#shelves
      .giveUp(waiter.key)
      ?.destroy()
      .finally(() => this.#refill())
  }

  async #make(shelf: Shelf) {
    this.#creating++
    shelf.creating++
    try {
      const sandbox = await this.#driver.create(shelf.shape)
      this.#failures = 0
      this.#lastFailure = undefined
      if (this.#state === 'closed') await sandbox.destroy()
      else this.#place(shelf, sandbox)
    } catch (error) {
      this.#failures++
      this.#lastFailure = error instanceof Error ? error.message : String(error)
      this.#options.onFailure?.(error)
    } finally {
      this.#creating--
      shelf.creating--
    }
    if (this.#failures === 0) this.#refill()
    else this.#clock.after(Math.min(firstRetryMs * 2 ** (this.#failures - 1), longestRetryMs), () => this.#refill())
  }

  #place(shelf: Shelf, sandbox: Sandbox) {
    const key = keyOf(shelf.shape)
    const waiter = this.#waiting.next(key, (waiting) => this.#mayHold(waiting))
    if (waiter !== undefined) {
      this.#markBusy(sandbox, waiter.share)
      waiter.resolve(sandbox)
      return
    }
    if (!this.#shelves.has(shelf)) {
      // It was retired meanwhile.
      sandbox.destroy()
      return
    }
    const entry = { sandbox, since: this.#clock.now() }
    shelf.idle.push(entry)
    sandbox.died.then(() => {
      const at = shelf.idle.indexOf(entry)
      if (at < 0) return
      shelf.idle.splice(at, 1)
      this.#refillSoon()
    })
    this.#planDrop()
  }

  #planDrop() {
    this.#cancelDrop ??= this.#clock.after(this.#options.idleTtlMs + 1, () => {
      this.#cancelDrop = undefined
      if (this.#state !== 'open') return
      this.#dropUnused()
      if (this.#shelves.idle > 0) this.#planDrop()
    })
  }

  #dropUnused() {
    const latest = this.#clock.now() - this.#options.idleTtlMs
    const defaultKey = keyOf(this.#driver.warmShape(this.#defaultShape))
    for (const sandbox of this.#shelves.dropUnused(latest, ({ shape }) => (keyOf(shape) === defaultKey ? this.#minSize : 0))) sandbox.destroy()
  }
}
