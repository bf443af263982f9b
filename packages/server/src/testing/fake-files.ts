import { posix } from 'node:path'
import { MagsError, type SandboxFile, type SandboxFiles } from '@mags/protocol'

export interface FakeFile {
  readonly content: Buffer
  readonly mode: number
  readonly modifiedAt: string
}

/** Files of a fake sandbox, by absolute path. A folder is there while something is in it. */
export class FakeFiles implements SandboxFiles {
  readonly tree: Map<string, FakeFile>

  constructor(tree: ReadonlyMap<string, FakeFile> = new Map()) {
    this.tree = new Map(tree)
  }

  async stat(path: string): Promise<SandboxFile> {
    return this.#describe(posix.normalize(path))
  }

  async list(path: string, limit: number): Promise<{ entries: SandboxFile[]; truncated: boolean }> {
    const folder = posix.normalize(path)
    if (this.#describe(folder).type !== 'directory') throw new MagsError('bad_request', `${folder} is not a folder`)
    const start = folder === '/' ? '/' : `${folder}/`
    const names = new Set([...this.tree.keys()].filter((one) => one.startsWith(start)).map((one) => one.slice(start.length).split('/')[0] ?? ''))
    const sorted = [...names].sort()
    return { entries: sorted.slice(0, limit).map((name) => this.#describe(start + name)), truncated: sorted.length > limit }
  }

  async *read(path: string, range?: { readonly offset: number; readonly lengthBytes: number }): AsyncGenerator<Uint8Array> {
    const file = this.tree.get(posix.normalize(path))
    if (file === undefined) throw this.#missing(path)
    yield range === undefined ? file.content : file.content.subarray(range.offset, range.offset + range.lengthBytes)
  }

  async write(path: string, content: AsyncIterable<Uint8Array>, options: { readonly mode?: number } = {}): Promise<void> {
    const chunks: Uint8Array[] = []
    for await (const chunk of content) chunks.push(Buffer.from(chunk))
    this.put(path, Buffer.concat(chunks), options.mode)
  }

  async remove(path: string, options: { readonly recursive: boolean }): Promise<void> {
    const target = posix.normalize(path)
    if (this.#describe(target).type === 'directory' && !options.recursive) throw new MagsError('bad_request', `${target} is a folder`)
    for (const one of [...this.tree.keys()]) if (one === target || one.startsWith(`${target}/`)) this.tree.delete(one)
  }

  /** The same at once, for fake scripts. */
  put(path: string, content: string | Buffer, mode?: number): void {
    const target = posix.normalize(path)
    this.tree.set(target, { content: Buffer.from(content as string), mode: mode ?? this.tree.get(target)?.mode ?? 0o644, modifiedAt: new Date().toISOString() })
  }

  #describe(path: string): SandboxFile {
    const file = this.tree.get(path)
    const name = posix.basename(path)
    if (file) return { name, type: 'file', sizeBytes: file.content.length, mode: file.mode, modifiedAt: file.modifiedAt }
    if (path !== '/' && ![...this.tree.keys()].some((one) => one.startsWith(`${path}/`))) throw this.#missing(path)
    return { name, type: 'directory', sizeBytes: 4096, mode: 0o755, modifiedAt: new Date(0).toISOString() }
  }

  #missing(path: string): MagsError {
    return new MagsError('not_found', `there is no ${path} in the sandbox`)
  }
}
