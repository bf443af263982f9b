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
  readonly #waiting = new Map<string, number>()
  /** In the order of their last failure. */
  readonly #failures = new Map<string, Failures>()
  #unauthenticated = 0

  constructor(limits: SshLimits, now: () => number = Date.now) {
    this.#limits = limits
    this.#now = now
  }

  /** Counts a connection that has not shown a key yet; false when there are too many. Call {@link leave} once for each that was let in. */
  enter(address: string): boolean {
    const network = networkOf(address)
    const waiting = this.#waiting.get(network) ?? 0
    if (waiting >= this.#limits.unauthenticatedPerAddress || this.#unauthenticated >= this.#limits.unauthenticated) return false
    this.#waiting.set(network, waiting + 1)
    this.#unauthenticated++
    return true
  }

  /** It has shown its key, or is gone. */
  leave(address: string): void {
    const network = networkOf(address)
    const waiting = (this.#waiting.get(network) ?? 0) - 1
    if (waiting > 0) this.#waiting.set(network, waiting)
    else this.#waiting.delete(network)
    this.#unauthenticated--
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
