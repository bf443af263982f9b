import { posix } from 'node:path'
import type { AgentFileEntry } from '../../agent/connection.ts'
import { requestError } from '../../agent/request-error.ts'

const errno = { ENOENT: 2, EEXIST: 17, ENOTDIR: 20, EISDIR: 21, ENOTEMPTY: 39 } as const

interface FakeFile {
  readonly type: 'file' | 'directory'
  readonly inode: bigint
  mode: number
  bytes: Buffer
  mtimeNs: bigint
}

/** A tree of files and directories in memory, with the errors the agent would give. Times count changes, so that runs are alike. */
export class FakeFiles {
  readonly #files = new Map<string, FakeFile>([['/', directory(0o755, 0n)]])
  #changes = 0n

  /** Everything, in the tree order of layers; paths are relative, the root's is empty. */
  tree(): { readonly path: string; readonly file: Readonly<FakeFile> }[] {
    const parts = (path: string) => path.split('/').filter((part) => part !== '')
    return [...this.#files].map(([path, file]) => ({ path: path.slice(1), file })).sort((a, b) => compareParts(parts(a.path), parts(b.path)))
  }

  /** Puts a copy of other files over these. */
  overlay(other: FakeFiles) {
    for (const [path, file] of other.#files) this.#files.set(path, { ...file, mtimeNs: ++this.#changes })
  }

  /** Removes everything but one folder. */
  narrow(folder: string) {
    for (const path of this.#files.keys()) if (path !== '/' && path !== `/${folder}` && !path.startsWith(`/${folder}/`)) this.#files.delete(path)
  }

  stat(path: string): AgentFileEntry {
    const at = posix.resolve('/', path)
    return this.#entry(at, this.#find('stat', at))
  }

  list(path: string, most: number): { entries: AgentFileEntry[]; more: boolean } {
    const at = posix.resolve('/', path)
    if (this.#find('list', at).type !== 'directory') throw requestError(`list ${at}`, errno.ENOTDIR)
    const children = [...this.#files].filter(([name]) => name !== '/' && posix.dirname(name) === at).sort()
    const entries = children.slice(0, most).map(([name, file]) => this.#entry(name, file))
    return { entries, more: children.length > most }
  }

  read(path: string, offset: number, most: number): Buffer {
    const at = posix.resolve('/', path)
    const file = this.#find('read', at)
    if (file.type === 'directory') throw requestError(`read ${at}`, errno.EISDIR)
    return Buffer.from(file.bytes.subarray(offset, offset + most))
  }

  write(path: string, bytes: Uint8Array, options: { mode: number; offset: number; truncate: boolean; parents: boolean }) {
    const at = posix.resolve('/', path)
    if (options.parents) this.makeDirectory(posix.dirname(at), { mode: 0o755, parents: true })
    else this.#find('write', posix.dirname(at))
    const found = this.#files.get(at)
    if (found?.type === 'directory') throw requestError(`write ${at}`, errno.EISDIR)
    const before = options.truncate ? Buffer.alloc(0) : (found?.bytes ?? Buffer.alloc(0))
    const after = Buffer.alloc(Math.max(before.length, options.offset + bytes.length))
    before.copy(after)
    after.set(bytes, options.offset)
    this.#files.set(at, { type: 'file', inode: found?.inode ?? this.#changes + 1n, mode: found?.mode ?? options.mode, bytes: after, mtimeNs: ++this.#changes })
  }

  remove(path: string, options: { recursive: boolean }) {
    const at = posix.resolve('/', path)
    this.#find('remove', at)
    const below = [...this.#files.keys()].filter((name) => name.startsWith(`${at}/`))
    if (below.length > 0 && !options.recursive) throw requestError(`remove ${at}`, errno.ENOTEMPTY)
    for (const name of [at, ...below]) this.#files.delete(name)
  }

  makeDirectory(path: string, options: { mode: number; parents: boolean }) {
    const at = posix.resolve('/', path)
    const found = this.#files.get(at)
    if (found?.type === 'directory' && options.parents) return
    if (found) throw requestError(`make directory ${at}`, errno.EEXIST)
    if (options.parents) this.makeDirectory(posix.dirname(at), options)
    else this.#find('make directory', posix.dirname(at))
    this.#files.set(at, directory(options.mode, ++this.#changes))
  }

  #find(what: string, at: string): FakeFile {
    const file = this.#files.get(at)
    if (file === undefined) throw requestError(`${what} ${at}`, errno.ENOENT)
    return file
  }

  #entry(at: string, file: FakeFile): AgentFileEntry {
    return { name: posix.basename(at), type: file.type, mode: file.mode, size: file.bytes.length, mtimeNs: file.mtimeNs }
  }
}

function compareParts(a: readonly string[], b: readonly string[]): number {
  const index = a.findIndex((part, at) => part !== b[at])
  if (index < 0) return a.length - b.length
  const [one, other] = [a[index], b[index]]
  return other === undefined ? 1 : Buffer.compare(Buffer.from(one ?? ''), Buffer.from(other))
}

function directory(mode: number, mtimeNs: bigint): FakeFile {
  return { type: 'directory', inode: mtimeNs, mode, bytes: Buffer.alloc(0), mtimeNs }
}
