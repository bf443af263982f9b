import { WireError } from './wire-error.ts'

const emptyLine = Buffer.from('\r\n\r\n', 'latin1')
export const maxHeadBytes = 65_536

/** Gathers a head that may come in any number of pieces; at most 64 KiB, and what can never become one is refused at once. */
export class HeadBuffer {
  #held: Buffer | undefined
  #length = 0

  get isEmpty(): boolean {
    return this.#length === 0
  }

  /** The head (latin1, with its last line's CRLF) once it is whole, and where in `bytes` what follows begins. Throws WireError. */
  take(bytes: Buffer): { readonly head: string; readonly next: number } | undefined {
    if (this.#held === undefined) {
      const end = bytes.indexOf(emptyLine)
      if (end >= 0) {
        if (end > maxHeadBytes) throw new WireError(431, 'the head is too large')
        return { head: bytes.toString('latin1', 0, end + 2), next: end + 4 }
      }
    }
    return this.#append(bytes)
  }

  #append(bytes: Buffer) {
    const before = this.#length
    const length = before + Math.min(bytes.length, maxHeadBytes + 4 - before)
    const held = this.#room(length)
    bytes.copy(held, before, 0, length - before)
    const from = Math.max(0, before - 3)
    const end = held.subarray(0, length).indexOf(emptyLine, from)
    if (end >= 0) {
      const head = held.toString('latin1', 0, end + 2)
      this.#held = undefined
      this.#length = 0
      return { head, next: end + 4 - before }
    }
    if (length > maxHeadBytes) throw new WireError(431, 'the head is too large')
    requireLines(held, Math.max(0, before - 1), length)
    this.#length = length
    return undefined
  }

  #room(length: number): Buffer {
    const held = this.#held
    if (held !== undefined && held.length >= length) return held
    const grown = Buffer.allocUnsafeSlow(Math.min(maxHeadBytes + 4, Math.max(1024, length * 2)))
    held?.copy(grown, 0, 0, this.#length)
    this.#held = grown
    return grown
  }
}

/** So that a head with bare line feeds is refused now and not when its time is over. */
function requireLines(held: Buffer, from: number, end: number): void {
  for (let i = from; i < end; i++) {
    const code = held[i] ?? 0
    if (code >= 32 || code === 9) continue
    const fine = code === 13 ? i + 1 === end || held[i + 1] === 10 : code === 10 && i > 0 && held[i - 1] === 13
    if (!fine) throw new WireError(400, 'the head has control characters or lines that do not end with CRLF')
  }
  if (held[0] === 13 || held[0] === 10 || held[0] === 32 || held[0] === 9) throw new WireError(400, 'the head begins with an empty line or a blank')
}
