import { createReadStream } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { MagsError } from '@mags/protocol'
import { storageFaultOf } from '../state/storage-fault.ts'

const unfinished = '.part'

/** Contents of uploaded files, each named by its id. Under its name is only what is whole and on the disk. */
export class FileFolder {
  readonly #path: string

  constructor(path: string) {
    this.#path = path
  }

  async prepare(): Promise<void> {
    await mkdir(this.#path, { recursive: true, mode: 0o700 })
  }

  /** Stores all of `content`; resolves with its size. Whatever fails, nothing is left. */
  async write(fileId: string, content: AsyncIterable<Uint8Array>): Promise<number> {
    const part = join(this.#path, fileId + unfinished)
    try {
      const sizeBytes = await this.#writePart(part, content)
      await rename(part, join(this.#path, fileId))
      await using folder = await open(this.#path)
      await folder.sync()
      return sizeBytes
    } catch (error) {
      await rm(part, { force: true }).catch(() => undefined)
      throw translate(error)
    }
  }

  /** Rejects with MagsError('not_found') when it is gone. */
  async *read(fileId: string): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      yield* createReadStream(join(this.#path, fileId)) as AsyncIterable<Buffer>
    } catch (error) {
      throw translate(error)
    }
  }

  async remove(fileId: string): Promise<void> {
    await rm(join(this.#path, fileId), { force: true })
  }

  /** Ids of all there is, of what is not whole as well. */
  async list(): Promise<string[]> {
    const names = await readdir(this.#path)
    return [...new Set(names.map((name) => (name.endsWith(unfinished) ? name.slice(0, -unfinished.length) : name)))]
  }

  /** The same, and what an interrupted upload left of it. */
  async discard(fileId: string): Promise<void> {
    await this.remove(fileId)
    await this.remove(fileId + unfinished)
  }

  async #writePart(path: string, content: AsyncIterable<Uint8Array>): Promise<number> {
    await using file = await open(path, 'wx', 0o600)
    let sizeBytes = 0
    for await (const bytes of content) {
      await writeAll(file, bytes)
      sizeBytes += bytes.length
    }
    await file.sync()
    return sizeBytes
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += (await file.write(bytes, at)).bytesWritten
}

function translate(error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException
  const storageFault = storageFaultOf(error)
  if (storageFault !== undefined) return new MagsError('storage_full', storageFault, { cause: error })
  if (code === 'ENOENT') return new MagsError('not_found', 'the content of the file is gone; upload it again', { cause: error })
  return error
}
