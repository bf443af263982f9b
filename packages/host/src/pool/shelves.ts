import type { Sandbox, SandboxShape } from '../drivers/driver.ts'
import { keyOf, type Shelf } from './shelf.ts'

/** The shelves of a pool, one for each shape that was asked for. */
export class Shelves {
  readonly #shelves = new Map<string, Shelf>()

  of(shape: SandboxShape): Shelf {
    const key = keyOf(shape)
    const found = this.#shelves.get(key)
    if (found !== undefined) return found
    const shelf: Shelf = { shape, idle: [], creating: 0, target: 0 }
    this.#shelves.set(key, shelf)
    return shelf
  }

  /** False once it was retired. */
  has(shelf: Shelf): boolean {
    return this.#shelves.get(keyOf(shelf.shape)) === shelf
  }

  [Symbol.iterator](): Iterator<Shelf> {
    return this.#shelves.values()
  }

  /** How many sandboxes lie on them. */
  get idle(): number {
    return [...this].reduce((sum, { idle }) => sum + idle.length, 0)
  }

  /** Those with less on them, or being made for them, than they should have; the emptiest first. */
  get short(): Shelf[] {
    return [...this]
      .filter((shelf) => shelf.idle.length + shelf.creating < shelf.target)
      .sort((a, b) => a.idle.length + a.creating - (b.idle.length + b.creating))
  }

  /** Takes an idle one that can be given up for another; of `key` none. */
  giveUp(key?: string): Sandbox | undefined {
    return [...this].find(({ shape, idle }) => idle.length > 0 && keyOf(shape) !== key)?.idle.shift()?.sandbox
  }

  /** Takes what is idle, of some shapes; their shelves are gone then. */
  retire(matches: (shape: SandboxShape) => boolean): Sandbox[] {
    const retired = [...this.#shelves].filter(([, { shape }]) => matches(shape))
    for (const [key] of retired) this.#shelves.delete(key)
    return retired.flatMap(([, { idle }]) => idle.splice(0).map(({ sandbox }) => sandbox))
  }

  /** Takes what nobody has used since `latest`, but for so many of each as `leastOf` says. */
  dropUnused(latest: number, leastOf: (shelf: Shelf) => number): Sandbox[] {
    const dropped: Sandbox[] = []
    for (const shelf of this) {
      const least = leastOf(shelf)
      // The oldest of a shelf lie at the front: the newest is taken first, so what lies there was not needed.
      while (shelf.idle.length > least && (shelf.idle[0]?.since ?? Number.POSITIVE_INFINITY) <= latest) {
        const oldest = shelf.idle.shift()
        if (oldest) dropped.push(oldest.sandbox)
        shelf.target = Math.max(least, shelf.idle.length)
      }
    }
    return dropped
  }
}
