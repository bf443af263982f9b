const tailBytes = 64 * 1024

/** The end of a log that is being written, in memory: followers of a running job read from there. */
export class LogTail {
  #parts: { readonly start: number; readonly bytes: Buffer }[] = []

  /** What was written at this place, behind all before. */
  add(start: number, bytes: Buffer): void {
    if (bytes.length === 0) return
    this.#parts.push({ start, bytes })
    let total = this.#parts.reduce((sum, part) => sum + part.bytes.length, 0)
    while (total > tailBytes) total -= this.#parts.shift()?.bytes.length ?? 0
  }

  /** Some bytes from this place on; undefined when they are not here. */
  from(position: number): Buffer | undefined {
    const part = this.#parts.find(({ start, bytes }) => position >= start && position < start + bytes.length)
    return part?.bytes.subarray(position - part.start)
  }
}
