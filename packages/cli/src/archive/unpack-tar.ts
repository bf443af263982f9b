import { randomBytes } from 'node:crypto'
import type { Stats } from 'node:fs'
import { chmod, link, lstat, lutimes, mkdir, open, realpath, rename, rm, symlink, utimes } from 'node:fs/promises'
import { namesOf } from './entry-path.ts'
import { defaultReadLimits, type ReadEntry, type ReadLimits, readTar } from './read-tar.ts'
import { pathBytes, pathForPeople } from './tar-entry.ts'
import { TarError } from './tar-error.ts'

export interface UnpackOptions {
  readonly limits?: ReadLimits
  /** Content written so far, all files together. */
  readonly onProgress?: (writtenBytes: number) => void
  readonly signal?: AbortSignal
}

export interface Unpacked {
  readonly files: number
  readonly bytes: number
  /** Devices, sockets and the like, which are left out. */
  readonly skipped: readonly string[]
}

/**
 * Unpacks an archive that may come from a hostile sandbox into a folder that is there. Nothing is written outside of the folder: names are checked,
 * and every folder on the way to an entry must be a real one, so that no link (of the archive, or one that was there) is ever followed. A file is
 * written under a name of our own and takes its place when it is whole. Kept are permissions without setuid, setgid and sticky bits, times, and
 * links as they stand; owners are not. Throws TarError for what is refused; entries before it stay.
 */
export async function unpackTar(bytes: AsyncIterable<Uint8Array>, folder: string, options: UnpackOptions = {}): Promise<Unpacked> {
  const unpacking = new Unpacking(await realpath(folder), options)
  for await (const entry of readTar(bytes, options.limits ?? defaultReadLimits)) {
    options.signal?.throwIfAborted()
    await unpacking.add(entry)
  }
  await unpacking.finish()
  return { files: unpacking.files, bytes: unpacking.writtenBytes, skipped: unpacking.skipped }
}

const maxSkippedNames = 100

class Unpacking {
  files = 0
  writtenBytes = 0
  readonly skipped: string[] = []
  readonly #root: string
  readonly #options: UnpackOptions
  /** Seen to be real folders. They stay that: what we put in place never replaces a folder. */
  readonly #folders = new Set<string>([''])
  /** Set at the end: a folder may be closed to its owner, and everything put into it changes its time. */
  readonly #folderAttributes = new Map<string, { mode: number; modifiedAt: number }>()

  constructor(root: string, options: UnpackOptions) {
    this.#root = Buffer.from(root, 'utf8').toString('latin1')
    this.#options = options
  }

  async add(entry: ReadEntry): Promise<void> {
    const names = namesOf(entry.path)
    if (entry.type === 'other') {
      if (this.skipped.length < maxSkippedNames) this.skipped.push(pathForPeople(names.join('/')))
      return
    }
    if (entry.type === 'directory') {
      const path = await this.#folder(names)
      if (path !== '') this.#folderAttributes.set(path, { mode: entry.mode & 0o777, modifiedAt: entry.modifiedAt })
      return
    }
    if (names.length === 0) throw new TarError('The archive has a file in the place of the folder itself; that is refused.')
    await this.#folder(names.slice(0, -1))
    const path = names.join('/')
    if (entry.type === 'file') await this.#file(entry, path)
    else if (entry.type === 'symlink') await this.#symlink(entry, path)
    else await this.#hardLink(entry, path)
    this.files += 1
  }

  async finish(): Promise<void> {
    // From the bottom up, so that a closed folder does not keep us out of those in it.
    const byDepth = [...this.#folderAttributes].sort(([left], [right]) => right.length - left.length)
    for (const [path, { mode, modifiedAt }] of byDepth) {
      const seconds = time(modifiedAt)
      await utimes(this.#place(path), seconds, seconds)
      await chmod(this.#place(path), mode)
    }
  }

  async #file(entry: ReadEntry, path: string): Promise<void> {
    await this.#put(path, async (place) => {
      const file = await open(place, 'wx', 0o600)
      try {
        for await (const part of entry.content) {
          this.#options.signal?.throwIfAborted()
          await writeAll(file, part)
          this.writtenBytes += part.length
          this.#options.onProgress?.(this.writtenBytes)
        }
        await file.utimes(time(entry.modifiedAt), time(entry.modifiedAt))
        await file.chmod(entry.mode & 0o777)
      } finally {
        await file.close()
      }
    })
  }

  async #symlink(entry: ReadEntry, path: string): Promise<void> {
    if (entry.target === '' || entry.target.includes('\0'))
      throw new TarError(`The archive has ${JSON.stringify(pathForPeople(path))}, a link to nothing; that is refused.`)
    await this.#put(path, async (place) => {
      await symlink(pathBytes(entry.target), place)
      await lutimes(place, time(entry.modifiedAt), time(entry.modifiedAt))
    })
  }

  async #hardLink(entry: ReadEntry, path: string): Promise<void> {
    const names = namesOf(entry.target)
    for (let depth = 1; depth < names.length; depth += 1) await this.#realFolder(names.slice(0, depth), false)
    const target = names.join('/')
    const stats = await this.#look(target)
    if (stats === undefined || !stats.isFile()) {
      throw new TarError(
        `The archive has ${JSON.stringify(pathForPeople(path))}, a second name of ${JSON.stringify(pathForPeople(target))}, which is no file in it; that is refused.`,
      )
    }
    await this.#put(path, (place) => link(this.#place(target), place))
  }

  /** Makes something under a name nobody can guess and moves it into its place, over a file or link that is there. */
  async #put(path: string, make: (place: Buffer) => Promise<void>): Promise<void> {
    const slash = path.lastIndexOf('/') + 1
    const place = this.#place(`${path.slice(0, slash)}.mags-${randomBytes(8).toString('hex')}`)
    try {
      await make(place)
      await rename(place, this.#place(path)).catch((error: unknown) => {
        if (codeOf(error) === 'EISDIR')
          throw new TarError(`${JSON.stringify(pathForPeople(path))} is a folder here and none in the archive. Move it away, or copy to another place.`)
        throw error
      })
    } finally {
      // Also after a rename between two names of one file, which does nothing (rename(2)).
      await rm(place, { force: true })
    }
  }

  /** Makes the folder and those above it. Returns its path. */
  async #folder(names: readonly string[]): Promise<string> {
    for (let depth = 1; depth <= names.length; depth += 1) await this.#realFolder(names.slice(0, depth), true)
    return names.join('/')
  }

  async #realFolder(names: readonly string[], make: boolean): Promise<void> {
    const path = names.join('/')
    if (this.#folders.has(path)) return
    const stats = await this.#look(path)
    if (stats === undefined && make) await mkdir(this.#place(path), 0o700)
    else if (!stats?.isDirectory()) {
      const what = stats === undefined ? 'not there' : stats.isSymbolicLink() ? 'a link' : 'no folder'
      throw new TarError(`The archive goes through ${JSON.stringify(pathForPeople(path))}, which is ${what}; that is refused.`)
    }
    // A folder that the archive only implies gets the usual permissions.
    if (stats === undefined) this.#folderAttributes.set(path, { mode: 0o755, modifiedAt: Date.now() / 1000 })
    this.#folders.add(path)
  }

  async #look(path: string): Promise<Stats | undefined> {
    try {
      return await lstat(this.#place(path))
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return undefined
      throw error
    }
  }

  #place(path: string): Buffer {
    return pathBytes(`${this.#root}/${path}`)
  }
}

async function writeAll(file: Awaited<ReturnType<typeof open>>, part: Uint8Array): Promise<void> {
  for (let at = 0; at < part.length; ) at += (await file.write(part, at)).bytesWritten
}

function codeOf(error: unknown): unknown {
  return (error as NodeJS.ErrnoException).code
}

/** Within the years 1970 to 9999, which every file system and tool takes. */
function time(seconds: number): number {
  return Math.min(Math.max(seconds, 0), 253_402_300_799)
}
