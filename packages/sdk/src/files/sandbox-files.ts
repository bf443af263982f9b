import { randomBytes } from 'node:crypto'
import { chmod, open, rename, rm } from 'node:fs/promises'
import { type Bytes, contentFrom } from '../http/content.ts'
import type { ApiRequest, OpenStream, Requester } from '../http/requester.ts'
import { readBytes } from '../jobs/read-bytes.ts'
import { type CallOptions, jobPath } from '../jobs/status.ts'
import type { SandboxFileListWire } from '../wire/answers.ts'
import type { Answer } from '../wire/names.ts'
import { type OnProgress, openLocalFile, withProgress } from './local-file.ts'

export interface ReadOptions extends CallOptions {
  /** First byte wanted; default 0. */
  offset?: number | undefined
  /** At most so many; default: to the end. */
  length?: number | undefined
}

export interface WriteOptions extends CallOptions {
  /** Permission bits, such as 0o755; default 0o644, or those of the file that is replaced. */
  mode?: number | undefined
  /** Of content that comes in parts, where it is known. */
  lengthBytes?: number | undefined
}

export interface CopyOptions extends CallOptions {
  onProgress?: OnProgress | undefined
}

/** Without any part going out, and for the answer after the last: the sandbox may have to be woken. */
const silenceLimitMs = 120_000

/** The whole content, in memory. {@link streamFile} gives it in parts. */
export async function readFile(requester: Requester, id: string, path: string, options: ReadOptions = {}): Promise<Buffer> {
  return await requester.bytes(readRequest(id, path, options))
}

/** The content as it comes. Leaving the iteration early closes the connection. */
export async function* streamFile(requester: Requester, id: string, path: string, options: ReadOptions = {}): AsyncGenerator<Uint8Array> {
  const request = readRequest(id, path, options)
  yield* readBytes(requester, request, await requester.open(request))
}

/** Replaces or makes a file, once all of the content has arrived; folders above it are made. */
export async function writeFile(requester: Requester, id: string, path: string, content: Bytes, options: WriteOptions = {}): Promise<void> {
  const { content: body, repeatable } = contentFrom(content, 'application/octet-stream', options.lengthBytes)
  await requester.bytes({ ...writeRequest(id, path, options), content: body, repeatable, once: !repeatable })
}

/** Sends a file of this machine into a sandbox, as it is read, with its permissions. */
export async function copyIn(requester: Requester, id: string, localPath: string, path: string, options: CopyOptions & WriteOptions = {}): Promise<void> {
  await using file = await openLocalFile(localPath)
  const request = writeRequest(id, path, { mode: file.mode, ...options })
  await requester.bytes({ ...request, content: withProgress(file.content, options.onProgress), repeatable: true })
}

/** Writes a file of a sandbox to this machine, as it comes: under another name beside the place, which it takes when it is whole. */
export async function copyOut(requester: Requester, id: string, path: string, localPath: string, options: CopyOptions = {}): Promise<void> {
  const request = readRequest(id, path, options)
  const stream = await requester.open(request)
  const draft = `${localPath}.mags-${randomBytes(6).toString('hex')}`
  try {
    const totalBytes = lengthOf(stream)
    await using file = await open(draft, 'wx', 0o600)
    let received = 0
    for await (const part of readBytes(requester, request, stream)) {
      for (let at = 0; at < part.length; ) at += (await file.write(part, at)).bytesWritten
      received += part.length
      options.onProgress?.(received, totalBytes)
    }
    await chmod(draft, modeOf(stream) ?? 0o644)
    await rename(draft, localPath)
  } finally {
    stream.close()
    await rm(draft, { force: true })
  }
}

export interface ListFilesOptions extends CallOptions {
  /** Default 1,000, at most 10,000. */
  limit?: number | undefined
}

/** What is in a folder, by name. */
export async function listFiles(requester: Requester, id: string, path: string, options: ListFilesOptions = {}): Promise<Answer<SandboxFileListWire>> {
  return await requester.json<SandboxFileListWire>({
    method: 'GET',
    path: jobPath(id, '/files/list'),
    query: { path, limit: options.limit },
    signal: options.signal,
  })
}

/** A folder, and all that is in it, only with `recursive`. */
export async function deleteFile(
  requester: Requester,
  id: string,
  path: string,
  options: CallOptions & { recursive?: boolean | undefined } = {},
): Promise<void> {
  const query = { path, recursive: options.recursive }
  await requester.bytes({ method: 'DELETE', path: jobPath(id, '/files'), query, signal: options.signal })
}

/** A folder's content as a tar archive. It comes from the sandbox: judge the names in it before you unpack it. */
export async function* readArchive(requester: Requester, id: string, path: string, options: CallOptions = {}): AsyncGenerator<Uint8Array> {
  const headers = { accept: 'application/x-tar' }
  const request: ApiRequest = {
    method: 'GET',
    path: jobPath(id, '/files/archive'),
    query: { path },
    headers,
    signal: options.signal,
    timeoutMs: silenceLimitMs,
  }
  yield* readBytes(requester, request, await requester.open(request))
}

/** Unpacks a tar archive in a folder of a sandbox, which is made when it is not there. */
export async function writeArchive(requester: Requester, id: string, path: string, tar: Bytes, options: CallOptions = {}): Promise<void> {
  const { content, repeatable } = contentFrom(tar, 'application/x-tar')
  const target = { method: 'PUT', path: jobPath(id, '/files/archive'), query: { path }, signal: options.signal, timeoutMs: silenceLimitMs } as const
  await requester.bytes({ ...target, content, repeatable, once: !repeatable })
}

function readRequest(id: string, path: string, { offset = 0, length, signal }: ReadOptions): ApiRequest {
  const ranged = offset > 0 || length !== undefined
  if (length !== undefined && length < 1) throw new TypeError('length must be 1 or more.')
  // RFC 9110, 14.1.2: the last byte is part of the range.
  const range = `bytes=${offset}-${length === undefined ? '' : offset + length - 1}`
  const headers = { accept: 'application/octet-stream', ...(ranged ? { range } : {}) }
  return { method: 'GET', path: jobPath(id, '/files'), query: { path }, headers, signal, timeoutMs: silenceLimitMs }
}

function writeRequest(id: string, path: string, { mode, signal }: WriteOptions): ApiRequest {
  const query = { path, mode: mode === undefined ? undefined : `0${(mode & 0o7777).toString(8).padStart(3, '0')}` }
  return { method: 'PUT', path: jobPath(id, '/files'), query, signal, timeoutMs: silenceLimitMs }
}

function lengthOf({ response }: OpenStream): number | undefined {
  const text = response.header('content-length')
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined
}

/** What we may take over of the permissions in the sandbox: not its setuid, setgid and sticky bits. */
function modeOf({ response }: OpenStream): number | undefined {
  const text = response.header('x-mags-mode')
  return text !== undefined && /^[0-7]{3,5}$/.test(text) ? Number.parseInt(text, 8) & 0o777 : undefined
}
