import { mkdir, mkdtemp, readdir, realpath, rename, rm, rmdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Image } from './image-catalogue.ts'
import { pointTo } from './publish-image.ts'

/** Not a name of an image. */
const workName = '.work'
/** Of a daemon that never came back. */
const abandonedAfterMs = 7 * 86_400_000

/**
 * The folder of images as daemons of this machine change it. Whatever is half done, made or removed, lies in `.work/<instance>.…` on the same file system: it comes and goes by one rename, and what a daemon left behind it finds again.
 */
export class ImageStore {
  /** Without links on the way. */
  readonly dir: string
  readonly #instance: string

  private constructor(dir: string, instance: string) {
    this.dir = dir
    this.#instance = instance
  }

  /** Makes the folder when it is missing, and removes what an earlier run of this daemon left half done. */
  static async open(dir: string, instance: string): Promise<ImageStore> {
    await mkdir(join(dir, workName), { recursive: true, mode: 0o755 })
    const store = new ImageStore(await realpath(dir), instance)
    await store.#sweep()
    return store
  }

  /** A folder for one import; the caller removes it by `discard`. */
  async workDir(): Promise<string> {
    return await mkdtemp(join(this.dir, workName, `${this.#instance}.`))
  }

  /** Removes a folder with all in it; no error when it is gone. */
  async discard(dir: string): Promise<void> {
    // Programs that were killed may still be on their way out of it.
    await rm(dir, { recursive: true, force: true, maxRetries: 5 })
  }

  /** Takes a version away at once. Resolves with the folder that has it now, for `discard`. `next`: what becomes the newest when this one was. */
  async withdraw(image: Image, next: { readonly digest: string } | undefined, wasCurrent: boolean): Promise<string> {
    const home = join(this.dir, image.name)
    const grave = await this.workDir()
    if (wasCurrent && next !== undefined) await pointTo(home, folderOf(next.digest), grave)
    if (wasCurrent && next === undefined) await rm(join(home, 'current'), { force: true })
    await rename(join(home, folderOf(image.digest)), join(grave, 'version'))
    if (next === undefined) await rmdir(home).catch(() => undefined)
    return grave
  }

  async #sweep(): Promise<void> {
    const work = join(this.dir, workName)
    for (const name of await readdir(work)) {
      const path = join(work, name)
      const ageMs = Date.now() - ((await stat(path).catch(() => undefined))?.mtimeMs ?? Date.now())
      if (name.startsWith(`${this.#instance}.`) || ageMs > abandonedAfterMs) await this.discard(path)
    }
  }
}

const folderOf = (digest: string) => digest.slice('sha256:'.length)
