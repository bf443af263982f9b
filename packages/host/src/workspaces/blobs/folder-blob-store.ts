import { constants, lstatSync, readFileSync, renameSync, unlinkSync } from 'node:fs'
import { chmod, link, mkdir, open, readdir, rmdir, stat, unlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { crc32 } from 'node:zlib'
import { MagsError } from '@mags/protocol'
import { checkKey, checkPrefix, isKey } from './blob-key.ts'
import { type Blob, type BlobInfo, type BlobStore, maxStoredBytes, type PutCondition } from './blob-store.ts'
import { FolderDrafts } from './folder-drafts.ts'
import { folderError } from './folder-error.ts'
import { FolderLock } from './folder-lock.ts'

/**
 * Objects as files: `objects/<key>`, written in `drafts/`, flushed, then moved to their name. Several processes of one machine may use one folder.
 *
 * Moving over and removing happen under a lock, so that "unchanged" can be checked first; "absent" is link(2), which refuses by itself. An etag is size, time, inode and CRC-32 of the file: times alone
 * do not tell two writes within a tick of the kernel's clock apart, and inodes are used again at once.
 */
export class FolderBlobStore implements BlobStore {
  readonly description: string
  readonly #folder: string
  readonly #objects: string
  readonly #drafts: FolderDrafts
  readonly #lock: FolderLock

  private constructor(folder: string, drafts: FolderDrafts, lock: FolderLock) {
    this.description = `folder ${folder}`
    this.#folder = folder
    this.#objects = join(folder, 'objects')
    this.#drafts = drafts
    this.#lock = lock
  }

  /** Makes the folder when there is none. */
  static async open(folder: string): Promise<FolderBlobStore> {
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 })
      await chmod(folder, 0o700)
      for (const name of ['objects', 'drafts']) await mkdir(join(folder, name), { recursive: true, mode: 0o700 })
      return new FolderBlobStore(folder, await FolderDrafts.open(join(folder, 'drafts')), new FolderLock(folder))
    } catch (error) {
      throw folderError(folder, 'cannot be used for objects', error)
    }
  }

  async get(key: string, abort?: AbortSignal): Promise<Blob | undefined> {
    const path = join(this.#objects, checkKey(key))
    try {
      abort?.throwIfAborted()
      const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW)
      try {
        const found = await file.stat({ bigint: true })
        if (!found.isFile() || found.size > BigInt(maxStoredBytes))
          throw new MagsError('object_store_refused', `${path} is not an object: no file, or over 64 MiB.`)
        const bytes = await file.readFile(abort ? { signal: abort } : undefined)
        return { bytes, etag: etagOf(found, bytes) }
      } finally {
        await file.close()
      }
    } catch (error) {
      if (isMissing(error)) return undefined
      throw folderError(this.#folder, `cannot read ${key}`, error)
    }
  }

  async put(key: string, bytes: Uint8Array, condition?: PutCondition): Promise<{ readonly etag: string } | undefined> {
    const path = join(this.#objects, checkKey(key))
    if (bytes.length > maxStoredBytes) throw new MagsError('object_store_refused', `${key} is over 64 MiB.`)
    let draft: string | undefined
    try {
      const { path: written, file } = await this.#drafts.create()
      draft = written
      let etag: string
      try {
        await file.writeFile(bytes)
        await file.datasync()
        etag = etagOf(await file.stat({ bigint: true }), bytes)
      } finally {
        await file.close()
      }
      const moved = await this.#inFolderOf(path, () => this.#move(written, path, condition))
      // Also when it was there already: whoever was faster may not have come so far.
      await flushFolder(dirname(path)).catch(ignoreMissing)
      if (!moved) return undefined
      draft = condition?.kind === 'absent' ? draft : undefined
      return { etag }
    } catch (error) {
      throw folderError(this.#folder, `cannot write ${key}`, error)
    } finally {
      if (draft !== undefined) await unlink(draft).catch(() => undefined)
    }
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) {
      const path = join(this.#objects, checkKey(key))
      try {
        await this.#lock.hold(() => unlinkSync(path))
        await this.#removeEmptyFolders(dirname(path))
      } catch (error) {
        if (!isMissing(error)) throw folderError(this.#folder, `cannot delete ${key}`, error)
      }
    }
  }

  async *list(prefix: string): AsyncIterable<BlobInfo> {
    checkPrefix(prefix)
    const cut = prefix.lastIndexOf('/')
    yield* this.#walk(cut < 0 ? '' : prefix.slice(0, cut + 1), prefix)
  }

  close(): void {
    this.#lock.close()
  }

  async *#walk(folder: string, prefix: string): AsyncIterable<BlobInfo> {
    const names = await this.#names(folder)
    for (const name of names.sort((a, b) => (a < b ? -1 : 1))) {
      const key = folder + name
      if (key.endsWith('/')) {
        if (key.startsWith(prefix) || prefix.startsWith(key)) yield* this.#walk(key, prefix)
      } else if (key.startsWith(prefix) && isKey(key)) {
        const found = await stat(join(this.#objects, key)).catch((error: unknown) => {
          if (!isMissing(error)) throw folderError(this.#folder, `cannot look at ${key}`, error)
        })
        if (found) yield { key, sizeBytes: found.size, modifiedAt: found.mtime }
      }
    }
  }

  /** Folders end in `/`: sorted with it, a walk gives keys in the order of their bytes. */
  async #names(folder: string): Promise<string[]> {
    try {
      const entries = await readdir(join(this.#objects, folder), { withFileTypes: true })
      return entries.filter((entry) => entry.isFile() || entry.isDirectory()).map((entry) => (entry.isDirectory() ? `${entry.name}/` : entry.name))
    } catch (error) {
      if (isMissing(error)) return []
      throw folderError(this.#folder, `cannot list ${folder}`, error)
    }
  }

  /** False when the condition does not hold. */
  async #move(draft: string, path: string, condition: PutCondition | undefined): Promise<boolean> {
    if (condition?.kind === 'absent') {
      return link(draft, path).then(
        () => true,
        (error: NodeJS.ErrnoException) => {
          if (error.code === 'EEXIST') return false
          throw error
        },
      )
    }
    return this.#lock.hold(() => {
      if (condition?.kind === 'unchanged' && currentEtag(path) !== condition.etag) return false
      renameSync(draft, path)
      return true
    })
  }

  /** Makes the folder when it is missing, again when somebody removes the empty one meanwhile. */
  async #inFolderOf<T>(path: string, move: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await move()
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || attempt === 20) throw error
      }
      await mkdir(dirname(path), { recursive: true, mode: 0o700 })
      for (let folder = dirname(path); folder !== this.#folder; folder = dirname(folder)) await flushFolder(dirname(folder)).catch(ignoreMissing)
    }
  }

  async #removeEmptyFolders(folder: string): Promise<void> {
    for (let empty = folder; empty !== this.#objects; empty = dirname(empty)) {
      try {
        await rmdir(empty)
      } catch {
        return
      }
    }
  }
}

function etagOf(file: { readonly size: bigint; readonly mtimeNs: bigint; readonly ino: bigint }, bytes: Uint8Array): string {
  return `${file.size}-${file.mtimeNs}-${file.ino}-${crc32(bytes).toString(16)}`
}

function currentEtag(path: string): string | undefined {
  try {
    return etagOf(lstatSync(path, { bigint: true }), readFileSync(path))
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}

/** Flushes names: fsync(2) of a file does not cover the folder it is in. */
async function flushFolder(path: string): Promise<void> {
  const folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

function isMissing(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code
  return code === 'ENOENT' || code === 'ENOTDIR'
}

function ignoreMissing(error: unknown): void {
  if (!isMissing(error)) throw error
}
