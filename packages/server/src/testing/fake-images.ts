import { type HostImages, type ImageInfo, type ImageOrigin, MagsError } from '@mags/protocol'

/** Images without a machine. */
export class FakeImages implements HostImages {
  readonly all: ImageInfo[]
  defaultImage: string
  /** Awaited before an image is made; may say something, and throw. */
  beforeCreate: (name: string, origin: ImageOrigin, onProgress: (words: string) => void, abort: AbortSignal | undefined) => Promise<void> | void = () =>
    undefined

  constructor(digests: Readonly<Record<string, string>>, defaultImage: string) {
    this.all = Object.entries(digests).map(([name, digest]) => makeImage(name, digest))
    this.defaultImage = defaultImage
  }

  async list(): Promise<readonly ImageInfo[]> {
    return this.all
  }

  async find(name: string, digest?: string): Promise<ImageInfo | undefined> {
    return this.all.find((image) => image.name === name && (digest === undefined ? image.current : image.digest === digest))
  }

  async create(name: string, origin: ImageOrigin, onProgress: (words: string) => void, abort?: AbortSignal): Promise<ImageInfo> {
    await this.beforeCreate(name, origin, onProgress, abort)
    if (origin.kind === 'archive') for await (const _ of origin.content) abort?.throwIfAborted()
    abort?.throwIfAborted()
    const older = this.all.filter((image) => image.name === name).length
    for (const [index, image] of this.all.entries()) if (image.name === name) this.all[index] = { ...image, current: false }
    const image = makeImage(name, `sha256:${name}-${older + 1}`)
    this.all.unshift(image)
    return image
  }

  async remove(name: string, digest?: string): Promise<void> {
    if (name === this.defaultImage && digest === undefined) throw new MagsError('image_in_use', `image ${name} is the default`)
    const kept = this.all.filter((image) => image.name !== name || (digest !== undefined && image.digest !== digest))
    this.all.splice(0, this.all.length, ...kept)
  }

  async setDefault(name: string): Promise<void> {
    this.defaultImage = name
  }
}

function makeImage(name: string, digest: string): ImageInfo {
  return {
    name,
    digest,
    current: true,
    os: name,
    sizeBytes: 2 ** 20,
    createdAt: '2026-01-01T00:00:00.000Z',
    source: { kind: 'recipe', reference: name },
    init: '/sbin/init',
  }
}
