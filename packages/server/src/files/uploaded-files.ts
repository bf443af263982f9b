import { randomUUID } from 'node:crypto'
import { MagsError, type ScriptFile, unusedFileDays } from '@mags/protocol'
import type { JobFiles } from '../jobs/job-files.ts'
import { timestamp } from '../state/timestamp.ts'
import type { FileFolder } from './file-folder.ts'
import type { FileStore, UploadedFile } from './store.ts'

const dayMs = 24 * 3600 * 1000

/**
 * Uploaded files: a row and a content each. The content is whole and on the disk before there is a row, and goes after it; so a crash leaves at most a
 * content without a row, which the next `sweep` takes away.
 */
export class UploadedFiles implements JobFiles {
  readonly #store: FileStore
  readonly #folder: FileFolder
  readonly #clock: () => number
  /** Contents that are about to get their row. */
  readonly #uploading = new Set<string>()

  constructor(deps: { readonly store: FileStore; readonly folder: FileFolder; readonly clock: () => number }) {
    this.#store = deps.store
    this.#folder = deps.folder
    this.#clock = deps.clock
  }

  async upload(accountId: string, fileName: string, content: AsyncIterable<Uint8Array>): Promise<UploadedFile> {
    const fileId = randomUUID()
    this.#uploading.add(fileId)
    try {
      const sizeBytes = await this.#folder.write(fileId, content)
      const now = timestamp(this.#clock())
      const file = { fileId, accountId, fileName, sizeBytes, createdAt: now, lastUsedAt: now }
      try {
        await this.#store.insert(file)
      } catch (error) {
        await this.#folder.remove(fileId).catch(() => undefined)
        throw error
      }
      return file
    } finally {
      this.#uploading.delete(fileId)
    }
  }

  list(accountId: string, page: { offset: number; limit: number }): Promise<{ files: UploadedFile[]; total: number }> {
    return this.#store.list(accountId, page)
  }

  /** Rejects with MagsError('not_found'). */
  async get(accountId: string, fileId: string): Promise<UploadedFile> {
    const file = await this.#store.get(accountId, fileId)
    if (file === undefined) throw unknownFile(fileId)
    return file
  }

  read(file: UploadedFile): AsyncIterable<Uint8Array> {
    return this.#folder.read(file.fileId)
  }

  async remove(accountId: string, fileId: string): Promise<void> {
    if (!(await this.#store.remove(accountId, fileId))) throw unknownFile(fileId)
    await this.#folder.remove(fileId)
  }

  /** Whether a job can have these, which counts as a use of them. Rejects with MagsError 'not_found', or 'bad_request' when two would have one name. */
  async check(accountId: string, fileIds: readonly string[]): Promise<void> {
    if (fileIds.length === 0) return
    const names = new Set<string>()
    for (const { fileName } of await this.#find(accountId, fileIds)) {
      if (names.has(fileName))
        throw new MagsError('bad_request', `file_ids: two of the files are named ${JSON.stringify(fileName)}; a job can have one of that name`)
      names.add(fileName)
    }
    await this.#store.touch(accountId, fileIds, timestamp(this.#clock()))
  }

  async open(accountId: string, fileIds: readonly string[]): Promise<readonly ScriptFile[]> {
    const files = await this.#find(accountId, fileIds)
    return files.map((file) => ({ path: `/root/${file.fileName}`, content: () => this.#folder.read(file.fileId) }))
  }

  /** Forgets files that nobody has used for long, and takes away contents that belong to no row. */
  async sweep(): Promise<void> {
    await this.#store.removeUnused(timestamp(this.#clock() - unusedFileDays * dayMs))
    // Looked at before the rows are: who gets a row meanwhile is not in the list, or is still uploading.
    const contents = (await this.#folder.list()).filter((fileId) => !this.#uploading.has(fileId))
    const known = await this.#store.known(contents)
    for (const fileId of contents) if (!known.has(fileId)) await this.#folder.discard(fileId)
  }

  /** In the order asked for. */
  async #find(accountId: string, fileIds: readonly string[]): Promise<UploadedFile[]> {
    const found = new Map((await this.#store.find(accountId, fileIds)).map((file) => [file.fileId, file]))
    return fileIds.map((fileId) => {
      const file = found.get(fileId)
      if (file === undefined) throw unknownFile(fileId, 'file_ids: ')
      return file
    })
  }
}

function unknownFile(fileId: string, field = ''): MagsError {
  return new MagsError('not_found', `${field}no file ${JSON.stringify(fileId.slice(0, 64))}; upload it (again), unused ones go after ${unusedFileDays} days`)
}
