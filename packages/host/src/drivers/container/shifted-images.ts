import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Image } from '../../images/image-catalogue.ts'
import type { MounterClient } from '../../mounter/mounter-client.ts'

/** An image for one range of ids. */
export interface ShiftedImageRequest {
  readonly slot: number
  readonly uidBase: number
  readonly image: Image
}

/**
 * Layers that give every inode of an image the owner it has in one slot's range of ids: for kernels that cannot do that when they mount. Made once for an image and a slot, some hundred milliseconds, and a
 * few megabytes; they go with the slot's other files.
 */
export class ShiftedImages {
  readonly #deps: { readonly mounter: MounterClient; readonly scratchDir: string }
  readonly #made = new Map<string, Promise<string>>()

  constructor(deps: { readonly mounter: MounterClient; readonly scratchDir: string }) {
    this.#deps = deps
  }

  /** Resolves with its layers, topmost first. */
  async layers(request: ShiftedImageRequest): Promise<string[]> {
    const key = `${request.slot} ${request.image.digest}`
    const making = this.#made.get(key) ?? this.#make(request)
    this.#made.set(key, making)
    try {
      return [await making, request.image.rootfsDir]
    } catch (error) {
      this.#made.delete(key)
      throw error
    }
  }

  /** Removes the layers of an image that no slot needs any more. */
  async forget(digest: string): Promise<void> {
    const { scratchDir } = this.#deps
    for (const key of [...this.#made.keys()]) if (key.endsWith(` ${digest}`)) this.#made.delete(key)
    for (const name of await readdir(scratchDir).catch(() => [])) {
      if (name.endsWith('.shifted')) await rm(join(scratchDir, name, folderOf(digest)), { recursive: true, force: true })
    }
  }

  async #make({ slot, uidBase, image }: ShiftedImageRequest): Promise<string> {
    const dir = join(this.#deps.scratchDir, `${slot}.shifted`, folderOf(image.digest))
    const draft = `${dir}.part`
    for (const old of [dir, draft]) await rm(old, { recursive: true, force: true })
    await mkdir(draft, { recursive: true, mode: 0o700 })
    await this.#deps.mounter.resetUpper(draft)
    await this.#deps.mounter.shift({ uidBase, imageDir: image.rootfsDir, dir: draft })
    await rename(draft, dir)
    return join(dir, 'u')
  }
}

const folderOf = (digest: string) => digest.replace(/\W/g, '-')
