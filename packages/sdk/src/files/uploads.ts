import { basename } from 'node:path'
import { type Bytes, type Content, contentFrom } from '../http/content.ts'
import type { Requester } from '../http/requester.ts'
import type { CallOptions, PageOptions } from '../jobs/status.ts'
import type { UploadedFileListWire, UploadedFileStatusWire, UploadedFileWire } from '../wire/answers.ts'
import type { Answer } from '../wire/names.ts'
import { formContent } from './form-content.ts'
import { type OnProgress, openLocalFile, withProgress } from './local-file.ts'

/** The path of a file of this machine, or content with the name it is to have in the sandbox. */
export type UploadSource = string | { readonly name: string; readonly content: Bytes; readonly lengthBytes?: number | undefined }

export interface UploadOptions extends CallOptions {
  onProgress?: OnProgress | undefined
}

export interface UploadManyOptions extends CallOptions {
  /** `index` is that of the source. */
  onProgress?: ((index: number, sentBytes: number, totalBytes: number | undefined) => void) | undefined
}

const atOnce = 3
const cleanUpMs = 10_000
/** Without any part going out. */
const silenceLimitMs = 120_000

/** Uploads one file, from disk as it is read. Its `file_id` goes into `fileIds` of a submit. */
export async function uploadFile(requester: Requester, source: UploadSource, options: UploadOptions = {}): Promise<Answer<UploadedFileWire>> {
  if (typeof source !== 'string') {
    const { content, repeatable } = contentFrom(source.content, 'application/octet-stream', source.lengthBytes)
    return await send(requester, source.name, { content, repeatable }, options)
  }
  await using file = await openLocalFile(source)
  return await send(requester, basename(source), { content: file.content, repeatable: true }, options)
}

/** Uploads several, three at a time; the answers are in the order of the sources. When one fails or it is aborted, none is left on the server. */
export async function uploadFiles(
  requester: Requester,
  sources: readonly UploadSource[],
  options: UploadManyOptions = {},
): Promise<Answer<UploadedFileWire>[]> {
  const answers: Answer<UploadedFileWire>[] = []
  const failures: unknown[] = []
  let next = 0
  const uploadNext = async () => {
    // After a failure no new one begins; those under way go on, for what is not waited for cannot be taken back.
    while (next < sources.length && failures.length === 0) {
      const index = next++
      const source = sources[index]
      if (source === undefined) continue
      const onProgress: OnProgress = (sent, total) => options.onProgress?.(index, sent, total)
      try {
        answers[index] = await uploadFile(requester, source, { signal: options.signal, onProgress })
      } catch (error) {
        failures.push(error)
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(atOnce, sources.length) }, uploadNext))
  if (failures.length === 0) return answers
  await Promise.allSettled(answers.map((answer) => deleteUploadedFile(requester, answer.file_id, { signal: AbortSignal.timeout(cleanUpMs) })))
  throw failures[0]
}

/** Newest first. */
export async function listUploadedFiles(requester: Requester, options: PageOptions = {}): Promise<Answer<UploadedFileListWire>> {
  const query = { page: options.page, page_size: options.pageSize }
  return await requester.json<UploadedFileListWire>({ method: 'GET', path: '/mags-files', query, signal: options.signal })
}

export async function fetchUploadedFile(requester: Requester, fileId: string, options: CallOptions = {}): Promise<Answer<UploadedFileStatusWire>> {
  return await requester.json<UploadedFileStatusWire>({ method: 'GET', path: filePath(fileId), signal: options.signal })
}

/** Jobs that have begun keep their copy. */
export async function deleteUploadedFile(requester: Requester, fileId: string, options: CallOptions = {}): Promise<void> {
  await requester.bytes({ method: 'DELETE', path: filePath(fileId), signal: options.signal, repeatable: true })
}

async function send(
  requester: Requester,
  name: string,
  { content, repeatable }: { content: Content; repeatable: boolean },
  { onProgress, signal }: UploadOptions,
): Promise<Answer<UploadedFileWire>> {
  return await requester.json<UploadedFileWire>({
    method: 'POST',
    path: '/mags-files',
    content: formContent(name, withProgress(content, onProgress)),
    once: !repeatable,
    signal,
    timeoutMs: silenceLimitMs,
  })
}

function filePath(fileId: string): string {
  if (fileId === '') throw new TypeError('The id of a file must not be empty.')
  return `/mags-files/${encodeURIComponent(fileId)}`
}
