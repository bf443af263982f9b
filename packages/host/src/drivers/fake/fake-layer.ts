import type { LayerChange, LayerContent, LayerEntry, LayerSession, LayerWrite, Stamp } from '../../layers/layer-session.ts'
import type { FakeFiles } from './fake-files.ts'

/** A layer session over the files of a fake machine or disk. Everything belongs to root and has no attributes; only directories and files can be written. */
export class FakeLayer implements LayerSession {
  readonly #files: FakeFiles
  #seen: readonly LayerEntry[] | undefined
  #closed = false

  constructor(files: FakeFiles) {
    this.#files = files
  }

  async *walk(): AsyncIterable<readonly LayerEntry[]> {
    this.#check()
    this.#seen = this.#entries()
    yield this.#seen
  }

  async *changes(): AsyncIterable<readonly LayerChange[]> {
    this.#check()
    if (this.#seen === undefined) throw new Error('changes need a walk before them')
    const before = new Map(this.#seen.map((entry) => [key(entry), entry]))
    this.#seen = this.#entries()
    const after = new Set(this.#seen.map(key))
    const present = this.#seen.filter((entry) => !sameStamp(entry.stamp, before.get(key(entry))?.stamp))
    const removed = [...before.values()].filter((entry) => !after.has(key(entry)))
    yield [...present.map((entry) => ({ present: entry })), ...removed.map(({ path }) => ({ removed: path }))]
  }

  async *read(paths: readonly Buffer[]): AsyncIterable<LayerContent> {
    this.#check()
    const entries = new Map(this.#files.tree().map(({ path, file }) => [path, file]))
    for (const [index, path] of paths.entries()) {
      const file = entries.get(path.toString())
      if (file?.type !== 'file') yield { index, kind: 'missing' }
      else {
        if (file.bytes.length > 0) yield { index, kind: 'data', bytes: Buffer.from(file.bytes) }
        yield { index, kind: 'end', stamp: stampOf(file) }
      }
    }
  }

  async write(tree: AsyncIterable<LayerWrite>): Promise<void> {
    this.#check()
    let path = '/'
    for await (const part of tree) {
      if (part.kind === 'data') this.#files.write(path, part.bytes, { mode: 0o644, offset: part.offset, truncate: false, parents: false })
      else {
        const { kind, mode } = part.entry
        path = `/${part.entry.path}`
        if (kind === 'directory') this.#files.makeDirectory(path, { mode, parents: true })
        else if (kind === 'file') this.#files.write(path, Buffer.alloc(part.entry.sizeBytes), { mode, offset: 0, truncate: true, parents: false })
        else throw new Error(`${path}: the fake has no ${kind}`)
      }
    }
  }

  close() {
    this.#closed = true
  }

  #check() {
    if (this.#closed) throw new Error('the layer session is closed')
  }

  #entries(): LayerEntry[] {
    return this.#files.tree().map(({ path, file }) => ({
      path: Buffer.from(path),
      kind: file.type,
      mode: file.mode,
      uid: 0,
      gid: 0,
      stamp: stampOf(file),
      links: 1,
      attributes: [],
    }))
  }
}

const key = ({ path }: LayerEntry) => path.toString('latin1')

function stampOf(file: { inode: bigint; bytes: Buffer; mtimeNs: bigint }): Stamp {
  return { inode: file.inode, sizeBytes: file.bytes.length, mtimeNs: file.mtimeNs, ctimeNs: file.mtimeNs }
}

function sameStamp(a: Stamp, b: Stamp | undefined) {
  return b !== undefined && a.inode === b.inode && a.sizeBytes === b.sizeBytes && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs
}
