import { type FileHandle, open } from 'node:fs/promises'
import type { Content } from '../http/content.ts'

/** How much has gone out; `totalBytes` is undefined where it is not known ahead. */
export type OnProgress = (sentBytes: number, totalBytes: number | undefined) => void

const partBytes = 256 * 1024

/** A file of this machine that is open for reading. Dispose it after the last try. */
export interface LocalFile extends AsyncDisposable {
  readonly content: Content
  readonly lengthBytes: number
  /** Permission bits. */
  readonly mode: number
}

/** Opens a file of this machine as content. Rejects with the system's error, and with TypeError for what is not a regular file. */
export async function openLocalFile(path: string): Promise<LocalFile> {
  const handle = await open(path, 'r')
  try {
    const stats = await handle.stat()
    if (!stats.isFile()) throw new TypeError(`${path} is not a regular file.`)
    const content = { type: 'application/octet-stream', lengthBytes: stats.size, open: () => readParts(handle, path, stats.size) }
    return { content, lengthBytes: stats.size, mode: stats.mode & 0o777, [Symbol.asyncDispose]: () => handle.close() }
  } catch (error) {
    await handle.close()
    throw error
  }
}

/** Exactly as many bytes as were announced, however the file changes meanwhile. */
async function* readParts(handle: FileHandle, path: string, lengthBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < lengthBytes; ) {
    // A new buffer for each part: the earlier one may still be on its way out.
    const buffer = Buffer.allocUnsafe(Math.min(partBytes, lengthBytes - at))
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, at)
    if (bytesRead === 0) throw new Error(`${path} became shorter while it was read. Copy it again when nothing writes to it.`)
    at += bytesRead
    yield buffer.subarray(0, bytesRead)
  }
}

/** The same content, with its progress reported. */
export function withProgress(content: Content, onProgress: OnProgress | undefined): Content {
  if (onProgress === undefined) return content
  return { ...content, open: () => reporting(content, onProgress) }
}

async function* reporting(content: Content, onProgress: OnProgress): AsyncGenerator<Uint8Array> {
  let sentBytes = 0
  for await (const part of content.open()) {
    yield part
    sentBytes += part.length
    onProgress(sentBytes, content.lengthBytes)
  }
}
