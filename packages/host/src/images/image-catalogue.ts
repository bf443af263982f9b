import { readdir, readlink, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { MagsError } from '@mags/protocol'
import { type ImageRecord, readImageRecord } from './image-record.ts'

/** A version of an image as it lies on this machine; its folder is named after its digest and never changes. */
export interface Image {
  readonly name: string
  /** `sha256:` and the digest of the erofs file. */
  readonly digest: string
  /** The tree, with the ids that are seen inside (0 is root): lower layer of containers. */
  readonly rootfsDir: string
  /** The same tree as a read-only file system: lower layer of VMs. */
  readonly erofsFile: string
}

/** A version with what is known of it. */
export interface CataloguedImage {
  readonly image: Image
  readonly record: ImageRecord
  /** The newest of its name. */
  readonly current: boolean
}

const folderRule = /^[0-9a-f]{64}$/
const nameRule = /^[A-Za-z0-9][A-Za-z0-9._-]*$/

/**
 * Images by name and version, as they lie in `dir/<name>/<digest>/`; `dir/<name>/current` leads to the newest. Names and digests come from requests, so they are only ever compared with what the folder lists. Other daemons of this machine
 * add and remove versions, too: `reload` looks again.
 */
export class ImageCatalogue {
  readonly #dir: string
  /** Versions on their way out. */
  readonly #hidden = new Set<string>()
  #versions = new Map<string, CataloguedImage>()
  #current = new Map<string, CataloguedImage>()
  #reading: Promise<void> = Promise.resolve()
  #nextReading: Promise<void> | undefined

  constructor(dir: string) {
    this.#dir = dir
  }

  static async open(dir: string): Promise<ImageCatalogue> {
    const catalogue = new ImageCatalogue(dir)
    await catalogue.reload()
    return catalogue
  }

  /** Names that have a newest version. */
  names(): string[] {
    return [...this.#current.keys()].sort()
  }

  /** Digest of the newest of each, by name. */
  digests(): Record<string, string> {
    return Object.fromEntries([...this.#current].map(([name, { image }]) => [name, image.digest]))
  }

  /** Every version, by name, the newest of each first. */
  all(): CataloguedImage[] {
    return [...this.#versions.values()].sort(
      (a, b) => compare(a.image.name, b.image.name) || Number(b.current) - Number(a.current) || compare(b.record.createdAt, a.record.createdAt),
    )
  }

  /** The newest of a name, or one version. */
  find(name: string, digest?: string): CataloguedImage | undefined {
    return digest === undefined ? this.#current.get(name) : this.#versions.get(keyOf(name, digest))
  }

  /** The same; throws MagsError 'bad_request' when there is no such name, 'not_available' when there is no such version. */
  get(name: string, digest?: string): Image {
    const found = this.find(name, digest)
    if (found !== undefined) return found.image
    const known = this.all().some(({ image }) => image.name === name)
    if (digest === undefined || !known)
      throw new MagsError('bad_request', `image: no image named ${name} on this server; there is ${this.names().join(', ') || 'none'}`)
    throw new MagsError(
      'not_available',
      `image: version ${digest} of ${name} is not on this server any more; bring the same archive again with 'mags image import', or start anew on the newest version`,
    )
  }

  /** The same after another look, when it is not known yet. */
  async load(name: string, digest?: string): Promise<Image> {
    if (this.find(name, digest) === undefined) await this.reload()
    return this.get(name, digest)
  }

  /** From now on nobody gets a version, until what it returns is called and it is read again. */
  hide(name: string, digest: string): () => void {
    const key = keyOf(name, digest)
    this.#hidden.add(key)
    this.forget(name, digest)
    return () => void this.#hidden.delete(key)
  }

  /** What is known of a version is read anew by the next `reload`. */
  forget(name: string, digest: string): void {
    this.#versions.delete(keyOf(name, digest))
    if (this.#current.get(name)?.image.digest === digest) this.#current.delete(name)
  }

  /** Settles when the folder was read from a moment after the call on; one reading at a time, so that an older one never wins. */
  reload(): Promise<void> {
    this.#nextReading ??= this.#reading.then(() => {
      this.#nextReading = undefined
      return this.#read()
    })
    this.#reading = this.#nextReading.catch(() => undefined)
    return this.#nextReading
  }

  async #read(): Promise<void> {
    const versions = new Map<string, CataloguedImage>()
    const current = new Map<string, CataloguedImage>()
    for (const name of await readdir(this.#dir).catch(() => [])) {
      if (!nameRule.test(name)) continue
      const dir = join(this.#dir, name)
      const newest = basename(await readlink(join(dir, 'current')).catch(() => ''))
      for (const folder of await readdir(dir).catch(() => [])) {
        if (!folderRule.test(folder)) continue
        const known = this.#versions.get(keyOf(name, `sha256:${folder}`))
        const read = await readVersion(name, join(dir, folder), known)
        if (read === undefined) continue
        const found = { ...read, current: folder === newest }
        versions.set(keyOf(name, found.image.digest), found)
        if (found.current) current.set(name, found)
      }
    }
    for (const key of this.#hidden) versions.delete(key)
    for (const [name, { image }] of current) if (!versions.has(keyOf(name, image.digest))) current.delete(name)
    this.#versions = versions
    this.#current = current
  }
}

async function readVersion(name: string, dir: string, known: CataloguedImage | undefined): Promise<Omit<CataloguedImage, 'current'> | undefined> {
  const image = { name, digest: `sha256:${basename(dir)}`, rootfsDir: join(dir, 'rootfs'), erofsFile: join(dir, 'root.erofs') }
  try {
    await Promise.all([stat(image.rootfsDir), stat(image.erofsFile)])
  } catch {
    return undefined
  }
  const record = known?.record ?? (await readImageRecord(dir, name))
  return record === undefined || record.digest !== image.digest ? undefined : { image, record }
}

const keyOf = (name: string, digest: string) => `${name} ${digest}`
const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)
