import { posix } from 'node:path'
import { MagsError } from '@mags/protocol'
import { execOutput } from './exec-output.ts'
import { isPattern, nameMatcher } from './match-path.ts'
import type { SourceMatch, SourceTree } from './source-tree.ts'
import type { StageRoot } from './stage-root.ts'

const maxListed = 10_000
const packTimeoutMs = 3600 * 1000

/** The files of a stage or image, looked up by their own sandbox. */
export class SandboxTree implements SourceTree {
  readonly words: string
  readonly #root: StageRoot

  constructor(root: StageRoot, words: string) {
    this.#root = root
    this.words = words
  }

  async match(pattern: string): Promise<readonly SourceMatch[]> {
    const wanted = posix.normalize(`/${pattern}`).split('/').filter(Boolean)
    let found = ['/']
    for (const name of wanted) {
      const next = await Promise.all(found.map(async (folder) => (isPattern(name) ? await this.#matchIn(folder, name) : [posix.join(folder, name)])))
      found = next.flat()
    }
    const matches = await Promise.all(found.map(async (path) => await this.#describe(path)))
    return matches.filter((match) => match !== undefined)
  }

  /** All of its files together: that they were changed elsewhere only cannot be told without looking. */
  async fingerprint(): Promise<string> {
    if (this.#root.key === undefined) throw new Error(`the files of ${this.words} have no key`)
    return this.#root.key
  }

  async *pack(paths: readonly string[]): AsyncGenerator<Uint8Array> {
    const command = ['tar', '-C', '/', '-cf', '-', '--', ...paths.map((path) => (path === '' ? '.' : `./${path}`))]
    yield* execOutput(await this.#root.open(), { command, timeoutMs: packTimeoutMs }, `files of ${this.words} could not be read with tar`)
  }

  async #matchIn(folder: string, pattern: string): Promise<string[]> {
    const { files } = await this.#root.open()
    const { entries, truncated } = await files.list(folder, maxListed).catch(absent({ entries: [], truncated: false }))
    if (truncated) throw new MagsError('image_invalid', `${folder} has more than ${maxListed} names, too many for a pattern`)
    const matches = nameMatcher(pattern)
    return entries.filter(({ name }) => matches(name)).map(({ name }) => posix.join(folder, name))
  }

  async #describe(path: string): Promise<SourceMatch | undefined> {
    const { files } = await this.#root.open()
    const file = await files.stat(path).catch(absent(undefined))
    if (file === undefined) return undefined
    return { path: path.slice(1), name: posix.basename(path), isFolder: file.type === 'directory' }
  }
}

function absent<T>(instead: T): (error: unknown) => T {
  return (error) => {
    if (error instanceof MagsError && (error.code === 'not_found' || error.code === 'bad_request')) return instead
    throw error
  }
}
