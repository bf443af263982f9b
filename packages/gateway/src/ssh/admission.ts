import { isIPv6 } from 'node:net'
import type { SshLimits } from './ssh-limits.ts'

/** More addresses than this are not remembered: the one that failed longest ago goes. */
const addressesMax = 10_000

interface Failures {
  count: number
  lastAt: number
}

/** Who may connect, and how long a failure waits for its answer. Waiting hurts nobody who has the right key. */
export class Admission {
  readonly #limits: SshLimits
  readonly #now: () => number
  /** By network, how each of its connections is ended, the oldest first. */
  readonly #waiting = new Map<string, Set<() => void>>()
  /** In the order of their last failure. */
  readonly #failures = new Map<string, Failures>()
  #unauthenticated = 0

  constructor(limits: SshLimits, now: () => number = Date.now) {
    this.#limits = limits
    this.#now = now
  }

  /**
   * Counts a connection that has not shown a key yet; undefined when its network has too many. What it returns is to be called when it has shown its key, or is gone. When there are too many in all, the oldest of the network
   * that has most gives way, so that a few networks cannot keep all others out: `end` is then called.
   */
  enter(address: string, end: () => void): (() => void) | undefined {
    const network = networkOf(address)
    const own = this.#waiting.get(network) ?? new Set()
    if (own.size >= this.#limits.unauthenticatedPerAddress) return undefined
    if (this.#unauthenticated >= this.#limits.unauthenticated && !this.#makeRoom(own.size)) return undefined
    const ended = () => end()
    this.#waiting.set(network, own.add(ended))
    this.#unauthenticated++
    return () => this.#leave(network, ended)
  }

  #leave(network: string, ended: () => void): void {
    const own = this.#waiting.get(network)
    if (!own?.delete(ended)) return
    this.#unauthenticated--
    if (own.size === 0) this.#waiting.delete(network)
  }

  /** False when nobody has more than the network of the one who comes would have. */
  #makeRoom(ownCount: number): boolean {
    let most: { readonly network: string; readonly size: number } | undefined
    for (const [network, { size }] of this.#waiting) if (size > (most?.size ?? ownCount + 1)) most = { network, size }
    const [oldest] = (most && this.#waiting.get(most.network)) ?? []
    if (most === undefined || oldest === undefined) return false
    this.#leave(most.network, oldest)
    oldest()
    return true
  }

  /** Counts a refused key or password; returns for how many milliseconds its answer has to wait. */
  fail(address: string): number {
    const network = networkOf(address)
    const now = this.#now()
    const known = this.#failures.get(network)
    const count = known === undefined || now - known.lastAt > this.#limits.failureMemoryMs ? 1 : known.count + 1
    this.#failures.delete(network)
    this.#failures.set(network, { count, lastAt: now })
    for (const oldest of this.#failures.keys()) {
      if (this.#failures.size <= addressesMax) break
      this.#failures.delete(oldest)
    }
    const over = count - this.#limits.freeFailures
    return over <= 0 ? 0 : Math.min(this.#limits.failureDelayMaxMs, this.#limits.failureDelayMs * 2 ** Math.min(over - 1, 20))
  }
}

/** Whoever has one IPv6 address has its whole network. */
function networkOf(address: string): string {
  const plain = address.toLowerCase().replace(/%.*$/, '')
  if (plain.startsWith('::ffff:') && plain.includes('.')) return plain.slice('::ffff:'.length)
  if (!isIPv6(plain)) return plain
  const [head = '', tail] = plain.split('::')
  const first = head === '' ? [] : head.split(':')
  const last = tail === undefined || tail === '' ? [] : tail.split(':')
  const middle = tail === undefined ? [] : new Array<string>(Math.max(0, 8 - first.length - last.length)).fill('0')
  return [...first, ...middle, ...last].slice(0, 4).join(':')
}
