/** Numbers that look random and are the same for the same seed (xorshift32). */
export class Dice {
  #state: number

  constructor(seed: number) {
    this.#state = Math.imul(seed + 1, 0x9e37_79b1) | 1
  }

  /** 0 up to but not `below`. */
  roll(below: number): number {
    let state = this.#state
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    this.#state = state
    return (state >>> 0) % below
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.roll(items.length)]
    if (item === undefined) throw new Error('nothing to pick from')
    return item
  }
}

/** Bytes that cannot be compressed. */
export function noise(length: number, seed: number): Buffer {
  const dice = new Dice(seed)
  const words = new Uint32Array(Math.ceil(length / 4))
  for (let at = 0; at < words.length; at++) words[at] = dice.roll(2 ** 32)
  return Buffer.from(words.buffer, 0, length)
}
