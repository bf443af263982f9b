import { wholeCharacters } from './utf8.ts'

export interface LineHoldOptions {
  /** How long the beginning of a line waits for its end. Default 8. */
  readonly holdMs?: number
  /** How long the beginning of a character waits for its end. Default 50. */
  readonly characterHoldMs?: number
  /** Gets blocks in order; `partial` when a block does not end with a new line. The bytes are valid during the call only. */
  readonly emit: (block: Buffer, partial: boolean) => void
}

const newLine = 10
const largestHold = 64 * 1024

/**
 * Cuts a stream of bytes into blocks of whole lines. The unfinished rest is held back for a moment, or until it is 64 KiB. States: empty → holding (a rest came, timer runs) → empty (its end came, or the time was over).
 */
export class LineHold {
  readonly #emit: LineHoldOptions['emit']
  readonly #holdMs: number
  readonly #characterHoldMs: number
  #held: Buffer[] = []
  #heldBytes = 0
  #timer: NodeJS.Timeout | undefined

  constructor(options: LineHoldOptions) {
    this.#emit = options.emit
    this.#holdMs = options.holdMs ?? 8
    this.#characterHoldMs = options.characterHoldMs ?? 50
  }

  push(bytes: Uint8Array): void {
    const chunk = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const end = chunk.lastIndexOf(newLine) + 1
    if (end > 0) {
      this.#release(chunk.subarray(0, end), false)
    }
    const rest = chunk.subarray(end)
    if (rest.length === 0) return
    // A copy: the bytes belong to the caller once this returns.
    this.#held.push(Buffer.from(rest))
    this.#heldBytes += rest.length
    if (this.#heldBytes >= largestHold) this.#releaseCharacters()
    else this.#timer ??= setTimeout(() => this.#releaseCharacters(), this.#holdMs)
  }

  /** The unfinished rest that is held back. */
  get held(): Buffer {
    if (this.#held.length > 1) this.#held = [Buffer.concat(this.#held)]
    return this.#held[0] ?? Buffer.alloc(0)
  }

  /** Forgets what is held. */
  drop(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#held = []
    this.#heldBytes = 0
  }

  /** Lets go of everything that is held. */
  flush(): void {
    if (this.#heldBytes > 0) this.#release(Buffer.alloc(0), true)
  }

  #release(last: Buffer, partial: boolean): void {
    const block = this.#heldBytes === 0 ? last : Buffer.concat([...this.#held, last])
    this.drop()
    this.#emit(block, partial)
  }

  #releaseCharacters(): void {
    const all = Buffer.concat(this.#held)
    const whole = wholeCharacters(all)
    if (whole === all.length) {
      this.flush()
      return
    }
    clearTimeout(this.#timer)
    this.#held = [all.subarray(whole)]
    this.#heldBytes = all.length - whole
    this.#timer = setTimeout(() => this.flush(), this.#characterHoldMs)
    if (whole > 0) this.#emit(all.subarray(0, whole), true)
  }
}
