import { MagsError } from '@mags/protocol'
import type { Sandbox, SandboxDriver, SandboxRoot, SandboxShape } from '../drivers/driver.ts'
import type { Headroom } from './headroom.ts'
import { type PoolClock, systemClock } from './pool-clock.ts'
import { keyOf, type Shelf } from './shelf.ts'
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
  readonly #shelves = new Map<string, Shelf>()
  readonly #waiting = new WaitingLine()
  readonly #roomWaiters: (() => void)[] = []
  readonly #busy = new Set<Sandbox>()
  readonly #asleep = new Set<Sandbox>()
  readonly #pending = new Set<Promise<void>>()
  #defaultShape: SandboxShape
  #minSize = 0
  #creating = 0
  /** Of those, the ones that somebody has already. */
  #creatingRoots = 0
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
    const shelf = this.#shelf(this.#driver.warmShape(this.#defaultShape))
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
    const retired = [...this.#shelves].filter(([, { shape }]) => matches(shape))
    for (const [key] of retired) this.#shelves.delete(key)
    await Promise.allSettled(retired.flatMap(([, { idle }]) => idle.splice(0).map(({ sandbox }) => sandbox.destroy())))
    this.#refill()
  }

  /** Starts to fill. Before that nothing is made, so that recovery has the machine for itself. */
  open() {
    this.#state = 'open'
    this.#refill()
  }

  /** A sandbox that an earlier daemon started counts as busy. */
  adopt(sandbox: Sandbox) {
    this.#markBusy(sandbox)
  }

  /** A busy one fell asleep, or is awake again. Asleep it makes room for another; its memory is what `headroom` sees. */
  rest(sandbox: Sandbox, asleep: boolean) {
    const [from, to] = asleep ? [this.#busy, this.#asleep] : [this.#asleep, this.#busy]
    if (!from.delete(sandbox)) return
    to.add(sandbox)
    if (asleep) this.#roomMade()
  }

  /**
   * Takes a sandbox for this shape; of those who wait, those with different shares get theirs in turn. One that leaves places free waits while a pool with a cap has no more than those. Rejects with `abort.reason` when aborted while waiting, and with MagsError 'sandbox_failed' when none came in time.
   */
  take(shape: SandboxShape, abort?: AbortSignal, { share = '', leaveFree = 0 }: Turn = {}): Promise<TakenSandbox> {
    abort?.throwIfAborted()
    this.#takes++
    this.#lastTake = this.#clock.now()
    const shelf = this.#shelf(this.#driver.warmShape(shape))
    const warm = this.#mayBeBusy(leaveFree) ? shelf.idle.pop() : undefined
    if (warm !== undefined) {
      this.#hits++
      this.#waiting.noteServed(share)
      this.#markBusy(warm.sandbox)
      this.#refillSoon()
      return Promise.resolve({ sandbox: warm.sandbox, warm: true })
    }
    shelf.target = Math.max(shelf.target, this.#minSize) + 1
    return this.#wait(shelf.shape, abort, { share, leaveFree }).then((sandbox) => ({ sandbox, warm: false }))
  }

  /** Makes one for a root of its own; waits while the pool is at its cap, or has no more places than it leaves free. Rejects as `take` does. */
  async takeNew(shape: SandboxShape, root: SandboxRoot, abort?: AbortSignal, { leaveFree = 0 }: Turn = {}): Promise<TakenSandbox> {
    this.#takes++
    while (!this.#mayBeBusy(leaveFree) || !this.#hasRoom()) {
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      const onAbort = () => reject(abort?.reason)
      abort?.addEventListener('abort', onAbort, { once: true })
      this.#roomWaiters.push(resolve)
      if (this.#mayBeBusy(leaveFree)) this.#giveUpIdle()
      await promise.finally(() => abort?.removeEventListener('abort', onAbort))
    }
    abort?.throwIfAborted()
    this.#creating++
    this.#creatingRoots++
    try {
      const sandbox = await this.#driver.create(shape, root)
      this.#markBusy(sandbox)
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
      this.#creatingRoots--
      this.#announceRoom()
    }
  }

  status() {
    const idle = [...this.#shelves.values()].reduce((sum, shelf) => sum + shelf.idle.length, 0)
    return {
      idle,
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
    const idle = [...this.#shelves.values()].flatMap((shelf) => shelf.idle.splice(0))
    await Promise.allSettled([...idle.map(({ sandbox }) => sandbox.destroy()), ...this.#pending])
  }

  #shelf(shape: SandboxShape): Shelf {
    const key = keyOf(shape)
    const found = this.#shelves.get(key)
    if (found !== undefined) return found
    const shelf: Shelf = { shape, idle: [], creating: 0, target: 0 }
    this.#shelves.set(key, shelf)
    return shelf
  }

  #wait(shape: SandboxShape, abort: AbortSignal | undefined, turn: Pick<Waiter, 'share' | 'leaveFree'>): Promise<Sandbox> {
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

  /** Whether one more may be taken of which so many places are left. A small pool has none to leave. */
  #mayBeBusy(leaveFree: number) {
    const { maxSize } = this.#options
    return maxSize === 0 || leaveFree === 0 || this.#busy.size + this.#creatingRoots < maxSize - Math.min(leaveFree, Math.floor(maxSize / 4))
  }

  #total() {
    return this.#busy.size + this.#creating + [...this.#shelves.values()].reduce((sum, shelf) => sum + shelf.idle.length, 0)
  }

  #giveUpIdle() {
    const victim = [...this.#shelves.values()].find(({ idle }) => idle.length > 0)?.idle.shift()
    victim?.sandbox.destroy().finally(() => this.#announceRoom())
  }

  #announceRoom() {
    for (const resolve of this.#roomWaiters.splice(0)) resolve()
  }

  #cannotMake(lastFailure: string) {
    const seconds = this.#options.acquireTimeoutMs / 1000
    return new MagsError('sandbox_failed', `no sandbox could be made within ${seconds} s: ${lastFailure}; 'mags doctor' checks this machine`)
  }

  #markBusy(sandbox: Sandbox) {
    this.#busy.add(sandbox)
    sandbox.died.then(() => {
      this.#busy.delete(sandbox)
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
      const low = [...this.#shelves.values()].some((shelf) => shelf.idle.length + shelf.creating < shelf.target / 2)
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
    const short = this.#waiting.length > 0 || [...this.#shelves.values()].some((shelf) => shelf.idle.length < shelf.target)
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
      const shelf = this.#shelf(waiter.shape)
      const before = served.get(waiter.key) ?? 0
      if (before >= shelf.creating) return total === 0 || this.#options.headroom.forJob() ? shelf : undefined
      served.set(waiter.key, before + 1)
    }
    const short = [...this.#shelves.values()].filter((shelf) => shelf.idle.length + shelf.creating < shelf.target)
    const worst = short.sort((a, b) => a.idle.length + a.creating - (b.idle.length + b.creating))[0]
    if (worst === undefined) return undefined
    const stocked = worst.idle.length + worst.creating
    return stocked < this.#minSize || this.#options.headroom.forStock() ? worst : undefined
  }

  /** Those who may have one now, in turn. */
  #waiters(): Waiter[] {
    return this.#waiting.inTurn().filter(({ leaveFree }) => this.#mayBeBusy(leaveFree))
  }

  /** At the cap, a waiter for one shape may need an idle sandbox of another to go. */
  #makeRoom() {
    const [waiter] = this.#waiters()
    if (waiter === undefined) return
    const victim = [...this.#shelves.entries()].find(([key, shelf]) => key !== waiter.key && shelf.idle.length > 0)?.[1].idle.shift()
    victim?.sandbox.destroy().finally(() => this.#refill())
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
    const waiter = this.#waiting.next(key, ({ leaveFree }) => this.#mayBeBusy(leaveFree))
    if (waiter !== undefined) {
      this.#markBusy(sandbox)
      waiter.resolve(sandbox)
      return
    }
    if (this.#shelves.get(key) !== shelf) {
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
      if ([...this.#shelves.values()].some((shelf) => shelf.idle.length > 0)) this.#planDrop()
    })
  }

  /** The oldest of a shelf lie at the front: the newest is taken first, so what lies there was not needed. */
  #dropUnused() {
    const latest = this.#clock.now() - this.#options.idleTtlMs
    const defaultKey = keyOf(this.#driver.warmShape(this.#defaultShape))
    for (const [key, shelf] of this.#shelves) {
      const least = key === defaultKey ? this.#minSize : 0
      while (shelf.idle.length > least && (shelf.idle[0]?.since ?? Number.POSITIVE_INFINITY) <= latest) {
        shelf.idle.shift()?.sandbox.destroy()
        shelf.target = Math.max(least, shelf.idle.length)
      }
    }
  }
}
