import { createHash, hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { posix } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { buildContextLimitBytes, MagsError } from '@mags/protocol'
import { nameMatcher } from './match-path.ts'
import { type CheckedEntry, readEntries, type TarLimits } from './rewrite-tar.ts'
import type { SourceMatch, SourceTree } from './source-tree.ts'

export const contextLimits: TarLimits = { maxEntries: 200_000, maxBytes: buildContextLimitBytes }
const maxLinks = 10
/** Others want to be served, too. */
const namesPerTurn = 5000

type Node = Pick<CheckedEntry, 'kind' | 'target'>

/** What was sent with a Dockerfile: an archive in a file of ours, of which names are kept in memory. */
export class ContextArchive implements SourceTree {
  readonly words = 'the context'
  readonly #file: string
  readonly #nodes: ReadonlyMap<string, Node>
  /** Names in each folder. */
  readonly #names = new Map<string, string[]>()
  #looked = 0
  #digests: Promise<ReadonlyMap<string, string>> | undefined

  private constructor(file: string, nodes: ReadonlyMap<string, Node>) {
    this.#file = file
    this.#nodes = nodes
    for (const path of nodes.keys()) {
      if (path === '') continue
      const folder = posix.dirname(path).replace(/^\.$/, '')
      const names = this.#names.get(folder)
      if (names) names.push(posix.basename(path))
      else this.#names.set(folder, [posix.basename(path)])
    }
  }

  /** Reads it once. Rejects with MagsError 'image_invalid' naming the entry and the rule, and 'too_large'. */
  static async open(file: string): Promise<ContextArchive> {
    const nodes = new Map<string, Node>([['', { kind: 'directory', target: '' }]])
    await readEntries(createReadStream(file), contextLimits, (entry, source) => {
      source.resume()
      if (entry.kind !== 'directory' && nodes.has(entry.path)) throw new MagsError('image_invalid', `${entry.path} is in the context twice`)
      for (let folder = posix.dirname(entry.path); folder !== '.'; folder = posix.dirname(folder))
        if (!nodes.has(folder)) nodes.set(folder, { kind: 'directory', target: '' })
      if (entry.path !== '') nodes.set(entry.path, { kind: entry.kind, target: entry.target })
    })
    return new ContextArchive(file, nodes)
  }

  /** The content of one file. Rejects with MagsError 'not_found', 'too_large'. */
  async readText(path: string, maxBytes: number): Promise<string> {
    const found = this.#follow(posix.normalize(path).replace(/^\/+|\/+$/g, ''))
    if (found === undefined || this.#nodes.get(found)?.kind !== 'file') throw new MagsError('not_found', `there is no file ${path} in what was sent`)
    const parts: Buffer[] = []
    await readEntries(createReadStream(this.#file), contextLimits, (entry, source) => {
      if (entry.path === found && entry.sizeBytes > maxBytes) throw new MagsError('too_large', `${path} has more than ${maxBytes / 1024} KiB`)
      if (entry.path === found) source.on('data', (part: Buffer) => parts.push(part))
      else source.resume()
    })
    return Buffer.concat(parts).toString('utf8')
  }

  async match(pattern: string): Promise<readonly SourceMatch[]> {
    const wanted = posix.normalize(`/${pattern}`).split('/').filter(Boolean)
    let found: SourceMatch[] = [{ path: '', name: '', isFolder: true }]
    for (const name of wanted) {
      const matches = nameMatcher(name)
      const next: SourceMatch[] = []
      for (const { path, isFolder } of found) if (isFolder) for (const match of await this.#matchIn(path, matches)) next.push(match)
      found = next
      if (found.length > contextLimits.maxEntries) throw new MagsError('too_large', `${JSON.stringify(pattern)} means more than there is in the context`)
    }
    return found
  }

  /** Names, modes, link targets and contents; not times, as Docker has it. */
  async fingerprint(patterns: readonly string[]): Promise<string> {
    this.#digests ??= this.#readDigests()
    const digests = await this.#digests
    const sum = createHash('sha256')
    for (const pattern of patterns)
      for (const { path, name, isFolder } of await this.match(pattern)) {
        sum.update(JSON.stringify([pattern, name, isFolder]))
        for (const inside of isFolder ? this.#below(path) : [path]) {
          if (++this.#looked % namesPerTurn === 0) await nextTurn()
          sum.update(JSON.stringify([inside.slice(path.length), digests.get(inside) ?? null]))
        }
      }
    return sum.digest('hex')
  }

  pack(): AsyncIterable<Uint8Array> {
    return createReadStream(this.#file)
  }

  /** A digest of each entry. */
  async #readDigests(): Promise<ReadonlyMap<string, string>> {
    const digests = new Map<string, string>()
    await readEntries(createReadStream(this.#file), contextLimits, ({ path, kind, mode, target }, source) => {
      const content = createHash('sha256')
      source.on('data', (part: Buffer) => content.update(part))
      source.on('end', () => digests.set(path, hash('sha256', JSON.stringify([kind, mode, target, content.digest('hex')]), 'hex')))
    })
    return digests
  }

  /** A folder and all in it, in order of their names. */
  *#below(path: string): Generator<string> {
    const left = [path]
    for (let next = left.pop(); next !== undefined; next = left.pop()) {
      yield next
      const names = [...(this.#names.get(next) ?? [])].sort().reverse()
      for (const name of names) left.push(next === '' ? name : `${next}/${name}`)
    }
  }

  async #matchIn(folder: string, matches: (name: string) => boolean): Promise<SourceMatch[]> {
    const start = folder === '' ? '' : `${folder}/`
    const found: string[] = []
    for (const name of this.#names.get(folder) ?? []) {
      if (++this.#looked % namesPerTurn === 0) await nextTurn()
      if (matches(name)) found.push(name)
    }
    return found.sort().flatMap((name) => {
      const path = this.#follow(start + name)
      return path === undefined ? [] : [{ path, name, isFolder: this.#nodes.get(path)?.kind === 'directory' }]
    })
  }

  /** Where a path leads within the context; undefined when that is nowhere. */
  #follow(path: string, links = 0): string | undefined {
    const node = this.#nodes.get(path)
    if (node?.kind !== 'symlink') return node && path
    if (links >= maxLinks) return undefined
    const target = posix.join('/', posix.dirname(path), node.target).slice(1)
    return this.#follow(posix.isAbsolute(node.target) ? posix.normalize(node.target).slice(1) : target, links + 1)
  }
}
