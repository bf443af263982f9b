import { MagsProtocolError } from '../errors.ts'

/** One event of a `text/event-stream`. `keep-alive` stands for a comment line, so that a reader can tell a silent line from a dead one. */
export interface ServerEvent {
  readonly event: string
  readonly data: string
  /** The last id seen so far, as the standard has it. */
  readonly id: string | undefined
}

export interface ParseLimits {
  /** Of one line and of one event's data; the default is 8 MiB. */
  readonly maxEventBytes?: number
}

export const keepAlive = 'keep-alive'

/**
 * Reads server-sent events (WHATWG HTML, 9.2.6) from bytes. An event that the end of the stream cuts short is dropped, as the standard
 * says: the reader comes back with the id of the last whole one. Throws MagsProtocolError over the limit.
 */
export async function* parseEvents(bytes: AsyncIterable<Uint8Array>, limits: ParseLimits = {}): AsyncGenerator<ServerEvent> {
  const maxEventBytes = limits.maxEventBytes ?? 8 * 1024 * 1024
  const event = new EventUnderWay()
  for await (const line of readLines(bytes, maxEventBytes)) {
    if (line === '') {
      const done = event.finish()
      if (done !== undefined) yield done
    } else if (line.startsWith(':')) {
      yield { event: keepAlive, data: '', id: undefined }
    } else {
      event.add(line)
      if (event.size > maxEventBytes) throw tooLong(maxEventBytes)
    }
  }
}

/** The fields of an event whose blank line has not come yet. */
class EventUnderWay {
  size = 0
  #name = ''
  #data: string[] = []
  #lastId: string | undefined

  add(line: string): void {
    const colon = line.indexOf(':')
    const field = colon === -1 ? line : line.slice(0, colon)
    const rest = colon === -1 ? '' : line.slice(colon + 1)
    const value = rest.startsWith(' ') ? rest.slice(1) : rest
    if (field === 'event') this.#name = value
    else if (field === 'id' && !value.includes('\0')) this.#lastId = value
    else if (field === 'data') {
      this.#data.push(value)
      this.size += value.length + 1
    }
  }

  finish(): ServerEvent | undefined {
    const done = this.#data.length === 0 ? undefined : { event: this.#name === '' ? 'message' : this.#name, data: this.#data.join('\n'), id: this.#lastId }
    this.#name = ''
    this.#data = []
    this.size = 0
    return done
  }
}

/** Lines ended by LF, CRLF or CR. A CR at the end of a part may be half a CRLF: the LF is then skipped. */
async function* readLines(bytes: AsyncIterable<Uint8Array>, maxLineBytes: number): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let pending = ''
  let skipLineFeed = false
  for await (const part of bytes) {
    let text = decoder.decode(part, { stream: true })
    if (text === '') continue
    if (skipLineFeed && text.startsWith('\n')) text = text.slice(1)
    skipLineFeed = text.endsWith('\r')
    // Only the new part is searched, so a long line that comes in many parts costs linear time.
    const lines = text.split(/\r\n|\n|\r/)
    const last = lines.pop() ?? ''
    for (const line of lines) {
      yield pending + line
      pending = ''
    }
    pending += last
    if (pending.length > maxLineBytes) throw tooLong(maxLineBytes)
  }
}

function tooLong(limit: number): MagsProtocolError {
  return new MagsProtocolError(`An event of the stream is longer than ${limit} bytes. Is the address that of a Mags server?`)
}
