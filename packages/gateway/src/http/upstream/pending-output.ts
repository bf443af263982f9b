import type { Duplex } from 'node:stream'

/** Up to this many bytes are copied together so that they leave in one write; and more, when they come in parts smaller than `smallBytes`. */
const joinBytes = 16_384
const smallBytes = 1024
/** With more than this not yet taken by the kernel, the source is asked to wait. */
const fullBytes = 262_144

/** What goes to a socket in one turn, written in one go. */
export class PendingOutput {
  readonly #socket: Duplex
  #parts: (string | Buffer)[] = []
  #length = 0

  constructor(socket: Duplex) {
    this.#socket = socket
  }

  /** Text is latin1. */
  add(part: string | Buffer): void {
    this.#parts.push(part)
    this.#length += part.length
  }

  /** A part of a body in chunked framing. */
  addChunk(bytes: Buffer): void {
    this.add(`${bytes.length.toString(16)}\r\n`)
    this.add(bytes)
    this.add('\r\n')
  }

  get isFull(): boolean {
    return this.#socket.writableLength > fullBytes
  }

  /** False when the source should wait for `drain`. */
  flush(): boolean {
    const parts = this.#parts
    if (parts.length === 0 || this.#socket.destroyed) {
      this.#clear()
      return true
    }
    const [first] = parts
    if (parts.length === 1 && first !== undefined) this.#write(first)
    else if (this.#length <= joinBytes || this.#length < parts.length * smallBytes) this.#socket.write(join(parts, this.#length))
    else {
      this.#socket.cork()
      for (const part of parts) this.#write(part)
      this.#socket.uncork()
    }
    this.#clear()
    return !this.isFull
  }

  #write(part: string | Buffer): void {
    if (typeof part === 'string') this.#socket.write(part, 'latin1')
    else this.#socket.write(part)
  }

  #clear(): void {
    if (this.#parts.length > 0) this.#parts = []
    this.#length = 0
  }
}

function join(parts: readonly (string | Buffer)[], length: number): Buffer {
  const joined = Buffer.allocUnsafe(length)
  let at = 0
  for (const part of parts) at += typeof part === 'string' ? joined.write(part, at, 'latin1') : part.copy(joined, at)
  return joined
}
