import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MagsError } from '@mags/protocol'

export interface DefaultImageDeps {
  readonly dataDir: string
  /** What it is while nothing else was chosen. */
  readonly configured: string
  /** The operator wrote it down (MAGS_DEFAULT_IMAGE): it stays. */
  readonly fixed: boolean
}

/** Which image jobs get that name none; kept in a file of this daemon. */
export class DefaultImage {
  readonly #deps: DefaultImageDeps
  #name: string

  private constructor(deps: DefaultImageDeps, name: string) {
    this.#deps = deps
    this.#name = name
  }

  /** `isThere`: whether there is an image of a name; one that is gone is the default no more. */
  static async open(deps: DefaultImageDeps, isThere: (name: string) => boolean): Promise<DefaultImage> {
    const stored = deps.fixed ? '' : (await readFile(fileOf(deps), 'utf8').catch(() => '')).trim()
    return new DefaultImage(deps, stored !== '' && isThere(stored) ? stored : deps.configured)
  }

  get name() {
    return this.#name
  }

  /** Rejects with MagsError 'not_available' when the operator has fixed it. */
  async set(name: string): Promise<void> {
    const { fixed, configured } = this.#deps
    if (fixed && name !== configured)
      throw new MagsError('not_available', `the operator has set the default image to ${configured} (MAGS_DEFAULT_IMAGE); it can be changed there only`)
    const file = fileOf(this.#deps)
    await writeFile(`${file}.part`, `${name}\n`, { mode: 0o600, flush: true })
    await rename(`${file}.part`, file)
    this.#name = name
  }
}

const fileOf = ({ dataDir }: DefaultImageDeps) => join(dataDir, 'default-image')
