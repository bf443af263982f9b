import { type FileHandle, open } from 'node:fs/promises'
import { imageInvalid } from './image-invalid.ts'
import { tooLarge } from './import-limits.ts'

/** Where the bytes of a file are. */
export interface Content {
  readonly sizeBytes: number
  read(): AsyncIterable<Buffer>
}

const bufferBytes = 1 << 20
const pieceBytes = 256 << 10

/** A file that contents are put one behind the other into, to be read in any order later. */
export class Spool implements AsyncDisposable {
  readonly #file: FileHandle
  readonly #maxBytes: number
  #waiting: Buffer[] = []
  #waitingBytes = 0
  #written = 0

  private constructor(file: FileHandle, maxBytes: number) {
    this.#file = file
    this.#maxBytes = maxBytes
  }

  /** `path` must not exist. */
  static async create(path: string, maxBytes: number): Promise<Spool> {
    return new Spool(await open(path, 'wx+', 0o600), maxBytes)
  }

  get sizeBytes() {
    return this.#written + this.#waitingBytes
  }

  /** Keeps the bytes; the array is not used afterwards. Rejects with 'too_large'. */
  async append(bytes: Buffer): Promise<void> {
    if (this.sizeBytes + bytes.length > this.#maxBytes) throw tooLarge(`its files are larger than ${Math.round(this.#maxBytes / 2 ** 20)} MB together`)
    this.#waiting.push(bytes)
    this.#waitingBytes += bytes.length
    if (this.#waitingBytes >= bufferBytes) await this.flush()
  }

  async flush(): Promise<void> {
    const bytes = this.#waiting.length === 1 ? (this.#waiting[0] as Buffer) : Buffer.concat(this.#waiting)
    this.#waiting = []
    this.#waitingBytes = 0
    for (let done = 0; done < bytes.length; ) done += (await this.#file.write(bytes, done, bytes.length - done, this.#written + done)).bytesWritten
    this.#written += bytes.length
  }

  /** What was put there from `offset` on. */
  content(offset: number, sizeBytes: number): Content {
    const file = this.#file
    const flush = () => (this.#waitingBytes > 0 ? this.flush() : undefined)
    return {
      sizeBytes,
      async *read() {
        await flush()
        for (let at = 0; at < sizeBytes; ) {
          const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(Math.min(pieceBytes, sizeBytes - at)), 0, undefined, offset + at)
          if (bytesRead === 0) throw new Error('a file of contents became shorter')
          at += bytesRead
          yield bytesRead === buffer.length ? buffer : buffer.subarray(0, bytesRead)
        }
      },
    }
  }

  async [Symbol.asyncDispose]() {
    await this.#file.close()
  }
}

/** Contents that are in memory. */
export function contentOfBytes(bytes: Buffer): Content {
  return {
    sizeBytes: bytes.length,
    async *read() {
      if (bytes.length > 0) yield bytes
    },
  }
}

/** All of it. Rejects with 'image_invalid' over `maxBytes`, naming what it is. */
export async function wholeContent(content: Content, maxBytes: number, what: string): Promise<Buffer> {
  if (content.sizeBytes > maxBytes) throw imageInvalid(`${what} has ${content.sizeBytes} bytes; at most ${maxBytes}`)
  const parts: Buffer[] = []
  for await (const piece of content.read()) parts.push(piece)
  return Buffer.concat(parts)
}
