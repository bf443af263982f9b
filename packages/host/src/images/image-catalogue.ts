import { readdir, readFile, realpath, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { MagsError } from '@mags/protocol'

/** An image as it lies on this machine; the folder is named after its digest and never changes. */
export interface Image {
  readonly name: string
  /** `sha256:` and the digest of the erofs file. */
  readonly digest: string
  /** The tree, with the ids that are seen inside (0 is root): lower layer of containers. */
  readonly rootfsDir: string
  /** The same tree as a read-only file system: lower layer of VMs. */
  readonly erofsFile: string
}

/** Images by name. Names come from requests, so they are only ever compared with what the folder lists. */
export class ImageCatalogue {
  readonly #dir: string
  #images = new Map<string, Image>()

  constructor(dir: string) {
    this.#dir = dir
  }

  /** Reads the folder `dir/<name>/current/`. */
  static async open(dir: string): Promise<ImageCatalogue> {
    const catalogue = new ImageCatalogue(dir)
    await catalogue.reload()
    return catalogue
  }

  names(): string[] {
    return [...this.#images.keys()].sort()
  }

  /** Digest of each, by name. */
  digests(): Record<string, string> {
    return Object.fromEntries([...this.#images.values()].map(({ name, digest }) => [name, digest]))
  }

  get(name: string): Image {
    const image = this.#images.get(name)
    if (image === undefined) throw new MagsError('bad_request', `image: no image named ${name} on this server; there is ${this.names().join(', ') || 'none'}`)
    return image
  }

  async reload() {
    const images = new Map<string, Image>()
    for (const name of await readdir(this.#dir).catch(() => [])) {
      const image = await readImage(name, join(this.#dir, name, 'current')).catch(() => undefined)
      if (image !== undefined) images.set(name, image)
    }
    this.#images = images
  }
}

async function readImage(name: string, link: string): Promise<Image> {
  const dir = await realpath(link)
  const description = JSON.parse(await readFile(join(dir, 'image.json'), 'utf8')) as { digest: string }
  const image = { name, digest: description.digest, rootfsDir: join(dir, 'rootfs'), erofsFile: join(dir, 'root.erofs') }
  await Promise.all([stat(image.rootfsDir), stat(image.erofsFile)])
  return image
}
