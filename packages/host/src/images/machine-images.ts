import { type HostImages, type ImageInfo, type ImageOrigin, MagsError } from '@mags/protocol'
import type { ImageCatalogue } from './image-catalogue.ts'

export interface MachineImagesDeps {
  readonly catalogue: ImageCatalogue
}

/** The images of this machine. */
export class MachineImages implements HostImages {
  readonly #deps: MachineImagesDeps

  constructor(deps: MachineImagesDeps) {
    this.#deps = deps
  }

  async list(): Promise<readonly ImageInfo[]> {
    return this.#deps.catalogue.names().map((name) => {
      const { digest } = this.#deps.catalogue.get(name)
      return { name, digest, current: true, os: name, sizeBytes: 0, createdAt: '', source: { kind: 'recipe', reference: name } }
    })
  }

  async find(name: string, digest?: string): Promise<ImageInfo | undefined> {
    return (await this.list()).find((image) => image.name === name && (digest === undefined ? image.current : image.digest === digest))
  }

  create(_name: string, _origin: ImageOrigin, _onProgress: (words: string) => void, _abort?: AbortSignal): Promise<ImageInfo> {
    throw new MagsError('not_available', 'images cannot be made yet')
  }

  remove(_name: string, _digest?: string): Promise<void> {
    throw new MagsError('not_available', 'images cannot be removed yet')
  }

  setDefault(_name: string): Promise<void> {
    throw new MagsError('not_available', 'the default image cannot be changed yet')
  }
}
