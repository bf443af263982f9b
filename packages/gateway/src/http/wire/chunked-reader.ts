import { type Field, parseFields } from './fields.ts'
import { mayTrail } from './trailer-names.ts'
import { WireError } from './wire-error.ts'

export interface ChunkSink {
  data(bytes: Buffer): void
  end(trailers: readonly Field[]): void
}

const maxTrailerBytes = 16_384
const maxSizeDigits = 12

/**
 * Reads a chunked body (RFC 9112 7.1) however it is cut. Only `hex CRLF data CRLF`, no extensions, no bare LF; what comes out is written anew, so that nobody behind has to read what the peer wrote.
 *
 * size -> sizeEnd -> data -> dataCr -> dataLf -> size …; after size 0: trailers -> done.
 */
export class ChunkedReader {
  #state: 'size' | 'sizeEnd' | 'data' | 'dataCr' | 'dataLf' | 'trailers' | 'done' = 'size'
  #size = 0
  #digits = 0
  #trailers = ''

  /** Returns where in `bytes` it stopped: their length, or behind the end of the body. Throws WireError. */
  read(bytes: Buffer, from: number, sink: ChunkSink): number {
    let at = from
    while (at < bytes.length) {
      switch (this.#state) {
        case 'size':
          this.#readSize(bytes[at++] ?? 0)
          break
        case 'sizeEnd':
          expect(bytes[at++], 10)
          this.#digits = 0
          this.#state = this.#size === 0 ? 'trailers' : 'data'
          break
        case 'data': {
          const take = Math.min(this.#size, bytes.length - at)
          sink.data(at === 0 && take === bytes.length ? bytes : bytes.subarray(at, at + take))
          at += take
          this.#size -= take
          if (this.#size === 0) this.#state = 'dataCr'
          break
        }
        case 'dataCr':
          expect(bytes[at++], 13)
          this.#state = 'dataLf'
          break
        case 'dataLf':
          expect(bytes[at++], 10)
          this.#state = 'size'
          break
        case 'trailers':
          this.#readTrailer(bytes[at++] ?? 0, sink)
          break
        case 'done':
          return at
      }
    }
    return at
  }

  #readSize(code: number): void {
    const digit = hexDigit(code)
    if (digit >= 0) {
      if (++this.#digits > maxSizeDigits) throw new WireError(400, 'a chunk is too large')
      this.#size = this.#size * 16 + digit
      return
    }
    if (code !== 13 || this.#digits === 0) throw new WireError(400, 'a chunk does not begin with its size and CRLF')
    this.#state = 'sizeEnd'
  }

  #readTrailer(code: number, sink: ChunkSink): void {
    const before = this.#trailers.charCodeAt(this.#trailers.length - 1)
    if (code === 10 ? before !== 13 : before === 13) throw new WireError(400, 'a trailer line does not end with CRLF')
    if (this.#trailers.length >= maxTrailerBytes) throw new WireError(431, 'the trailers are too large')
    this.#trailers += String.fromCharCode(code)
    if (code !== 10) return
    const whole = this.#trailers
    if (whole !== '\r\n' && !whole.endsWith('\r\n\r\n')) return
    this.#state = 'done'
    this.#trailers = ''
    sink.end(whole === '\r\n' ? [] : parseFields(whole.slice(0, -2), 0).filter((field) => mayTrail(field.lower)))
  }
}

function expect(code: number | undefined, wanted: number): void {
  if (code !== wanted) throw new WireError(400, 'a chunk does not end where its size says')
}

function hexDigit(code: number): number {
  if (code >= 48 && code <= 57) return code - 48
  const lower = code | 32
  return lower >= 97 && lower <= 102 ? lower - 87 : -1
}
