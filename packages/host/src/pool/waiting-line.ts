import type { Sandbox, SandboxShape } from '../drivers/driver.ts'

/** Whose turn it is, and how many there are to share with. */
export interface Turn {
  /** See `SandboxSpec.share`. */
  readonly share?: string | undefined
  /** See `SandboxSpec.shares`. */
  readonly shares?: number | undefined
}

export interface Waiter {
  /** Of the shelf it can be served from. */
  readonly key: string
  readonly shape: SandboxShape
  readonly share: string
  readonly shares: number
  readonly resolve: (sandbox: Sandbox) => void
}

const mostRemembered = 10_000

/** Who waits for a sandbox. Those of one share are served in the order they came; shares in turn, beginning with the one that was served longest ago, so that nobody who comes stands behind a crowd of somebody else. */
export class WaitingLine {
  readonly #waiters: Waiter[] = []
  readonly #lastServed = new Map<string, number>()
  #serves = 0

  get length(): number {
    return this.#waiters.length
  }

  add(waiter: Waiter): void {
    this.#waiters.push(waiter)
  }

  /** False when it is served already. */
  remove(waiter: Waiter): boolean {
    const index = this.#waiters.indexOf(waiter)
    if (index >= 0) this.#waiters.splice(index, 1)
    return index >= 0
  }

  /** A share got a sandbox, waiting or not. */
  noteServed(share: string): void {
    if (this.#lastServed.size >= mostRemembered) this.#lastServed.clear()
    this.#lastServed.set(share, ++this.#serves)
  }

  /** In the order in which they are to be served. */
  inTurn(): Waiter[] {
    const shares = new Map<string, Waiter[]>()
    for (const waiter of this.#waiters) {
      const own = shares.get(waiter.share)
      if (own) own.push(waiter)
      else shares.set(waiter.share, [waiter])
    }
    const turns = [...shares].sort(([a], [b]) => (this.#lastServed.get(a) ?? 0) - (this.#lastServed.get(b) ?? 0)).map(([, own]) => own)
    const longest = Math.max(0, ...turns.map((own) => own.length))
    return Array.from({ length: longest }, (_, round) => turns.flatMap((own) => own.slice(round, round + 1))).flat()
  }

  /** Takes the one out whose turn it is, of those who can be served from this shelf and may have it. */
  next(key: string, mayHave: (waiter: Waiter) => boolean): Waiter | undefined {
    const waiter = this.inTurn().find((waiting) => waiting.key === key && mayHave(waiting))
    if (waiter === undefined) return undefined
    this.remove(waiter)
    this.noteServed(waiter.share)
    return waiter
  }
}
