import { MagsError } from '@mags/protocol'
import { compareTreeOrder } from '../../workspaces/tree/tree-order.ts'
import type { ExtendedAttribute, LayerChange, LayerContent, LayerEntry, LayerEntryKind, LayerSession, LayerWrite, Stamp } from '../layer-session.ts'

/** A part of a file: bytes, or a hole of so many. */
export type MemoryPart = Buffer | { readonly holeBytes: number }

interface Inode {
  readonly number: bigint
  readonly kind: LayerEntryKind
  mode: number
  uid: number
  gid: number
  mtimeNs: bigint
  ctimeNs: bigint
  parts: readonly MemoryPart[]
  readonly target: Buffer | undefined
  attributes: readonly ExtendedAttribute[]
  links: number
}

/** What a new path is; the rest is ordinary. */
export interface MemoryEntry {
  readonly kind?: LayerEntryKind
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  readonly mtimeNs?: bigint
  readonly content?: Buffer | string | readonly MemoryPart[]
  readonly target?: string | Buffer
  readonly attributes?: readonly ExtendedAttribute[]
}

const second = 1_000_000_000n
const contentBytesAtATime = 300_000

/** A layer in memory, for tests: paths are strings of one character per byte (latin1). Every change takes a second, so that no stamp is doubtful unless `tickNs` is set lower. */
export class MemoryLayer {
  readonly #paths = new Map<string, Inode>()
  #inodes = 0n
  nowNs = 1_700_000_000n * second
  tickNs = second
  /** Called before each part of a file that a session reads, and after its last. */
  onRead: ((path: string, at: 'part' | 'end') => void) | undefined

  constructor() {
    this.#paths.set('', this.#inode({ kind: 'directory', mode: 0o755 }))
  }

  /** Makes a path, or puts another in its place. Folders around it are made. */
  put(path: string, entry: MemoryEntry = {}): void {
    const slash = path.lastIndexOf('/')
    const folder = slash < 0 ? '' : path.slice(0, slash)
    if (path !== '' && this.#paths.get(folder)?.kind !== 'directory') this.put(folder, { kind: 'directory' })
    const kind = entry.kind ?? 'file'
    if (kind === 'directory' && this.#paths.get(path)?.kind === 'directory') {
      Object.assign(this.#existing(path), { mode: entry.mode ?? 0o755, uid: entry.uid ?? 0, gid: entry.gid ?? 0, attributes: entry.attributes ?? [] })
      this.#touch(this.#existing(path), entry.mtimeNs)
      return
    }
    if (path !== '') this.remove(path)
    this.#paths.set(path, this.#inode(entry))
  }

  file(path: string, content: Buffer | string | readonly MemoryPart[], entry: MemoryEntry = {}): void {
    this.put(path, { ...entry, content })
  }

  folder(path: string, entry: MemoryEntry = {}): void {
    this.put(path, { ...entry, kind: 'directory' })
  }

  /** Another name for a file. */
  link(existing: string, path: string): void {
    const inode = this.#existing(existing)
    this.remove(path)
    inode.links++
    inode.ctimeNs = this.tick()
    this.#paths.set(path, inode)
  }

  /** New bytes for a file that stays the same inode. */
  rewrite(path: string, content: Buffer | string | readonly MemoryPart[]): void {
    const inode = this.#existing(path)
    inode.parts = partsOf(content)
    this.#touch(inode, undefined)
  }

  change(path: string, what: Pick<MemoryEntry, 'mode' | 'uid' | 'gid' | 'mtimeNs' | 'attributes'>): void {
    const inode = this.#existing(path)
    Object.assign(inode, what)
    inode.ctimeNs = this.tick()
  }

  remove(path: string): void {
    const gone = this.#paths.get(path)
    if (gone === undefined) return
    if (gone.kind !== 'directory') {
      this.#paths.delete(path)
      gone.links--
      gone.ctimeNs = this.tick()
      return
    }
    for (const [other, inode] of this.#paths) {
      if (other !== path && !other.startsWith(`${path}/`)) continue
      this.#paths.delete(other)
      inode.links--
      inode.ctimeNs = this.tick()
    }
  }

  rename(from: string, to: string): void {
    this.remove(to)
    for (const [path, inode] of [...this.#paths]) {
      if (path !== from && !path.startsWith(`${from}/`)) continue
      this.#paths.delete(path)
      this.#paths.set(to + path.slice(from.length), inode)
      if (path === from) inode.ctimeNs = this.tick()
    }
  }

  paths(): string[] {
    const paths = Array.from(this.#paths.keys(), (path) => ({ path, bytes: Buffer.from(path, 'latin1') }))
    return paths.sort((a, b) => compareTreeOrder(a.bytes, b.bytes)).map(({ path }) => path)
  }

  kindOf(path: string): LayerEntryKind | undefined {
    return this.#paths.get(path)?.kind
  }

  contentOf(path: string): Buffer {
    return Buffer.concat(this.#existing(path).parts.map((part) => (Buffer.isBuffer(part) ? part : Buffer.alloc(part.holeBytes))))
  }

  /** The time goes on; gives the new one. */
  tick(): bigint {
    this.nowNs += this.tickNs
    return this.nowNs
  }

  /** Everything that a version keeps, to compare two layers. */
  snapshot(): unknown[] {
    const names = new Map<Inode, string>()
    return this.paths().flatMap((path) => {
      const inode = this.#existing(path)
      if (inode.kind === 'device') return []
      if (!names.has(inode)) names.set(inode, path)
      if (inode.kind === 'whiteout') return [{ path, kind: 'whiteout' }]
      const { kind, mode, uid, gid, mtimeNs, target } = inode
      const attributes = inode.attributes.map(({ name, value }) => `${name}=${value.toString('hex')}`)
      const holes = inode.parts.map((part) => (Buffer.isBuffer(part) ? 'data' : `hole of ${part.holeBytes}`)).join()
      const content = kind === 'file' ? this.contentOf(path).toString('latin1') : undefined
      return [
        {
          path,
          kind,
          mode,
          uid,
          gid,
          mtimeNs,
          target: target?.toString('latin1'),
          attributes,
          content,
          holes,
          link: inode.links > 1 ? names.get(inode) : undefined,
        },
      ]
    })
  }

  session(): LayerSession {
    return new MemorySession(this)
  }

  entry(path: string): LayerEntry {
    const inode = this.#existing(path)
    const { kind, mode, uid, gid, links, attributes, target } = inode
    return { path: Buffer.from(path, 'latin1'), kind, mode, uid, gid, links, attributes, stamp: stampOf(inode), ...(target === undefined ? {} : { target }) }
  }

  /** Undefined for what is no file. */
  parts(path: string): readonly MemoryPart[] | undefined {
    const inode = this.#paths.get(path)
    return inode?.kind === 'file' ? inode.parts : undefined
  }

  #existing(path: string): Inode {
    const inode = this.#paths.get(path)
    if (inode === undefined) throw new Error(`the layer in memory has no ${JSON.stringify(path)}`)
    return inode
  }

  #touch(inode: Inode, mtimeNs: bigint | undefined): void {
    inode.ctimeNs = this.tick()
    inode.mtimeNs = mtimeNs ?? inode.ctimeNs
  }

  #inode(entry: MemoryEntry): Inode {
    const now = this.tick()
    const kind = entry.kind ?? 'file'
    const target = kind === 'symlink' ? Buffer.from(entry.target ?? 'nowhere') : undefined
    return {
      number: ++this.#inodes,
      kind,
      mode: entry.mode ?? (kind === 'directory' ? 0o755 : kind === 'symlink' ? 0o777 : 0o644),
      uid: entry.uid ?? 0,
      gid: entry.gid ?? 0,
      mtimeNs: entry.mtimeNs ?? now,
      ctimeNs: now,
      parts: partsOf(entry.content ?? ''),
      target,
      attributes: entry.attributes ?? [],
      links: 1,
    }
  }
}

function partsOf(content: Buffer | string | readonly MemoryPart[]): readonly MemoryPart[] {
  if (typeof content !== 'string' && !Buffer.isBuffer(content)) return content
  const bytes = Buffer.from(content)
  return bytes.length === 0 ? [] : [bytes]
}

function stampOf(inode: Inode): Stamp {
  const sizeBytes = inode.parts.reduce((sum, part) => sum + (Buffer.isBuffer(part) ? part.length : part.holeBytes), 0)
  return { inode: inode.number, sizeBytes, mtimeNs: inode.mtimeNs, ctimeNs: inode.ctimeNs }
}

class MemorySession implements LayerSession {
  readonly #layer: MemoryLayer
  #remembered: Map<string, LayerEntry> | undefined

  constructor(layer: MemoryLayer) {
    this.#layer = layer
  }

  async *walk(): AsyncGenerator<readonly LayerEntry[]> {
    this.#remembered = new Map()
    let batch: LayerEntry[] = []
    for (const path of this.#layer.paths()) {
      if (this.#layer.kindOf(path) === undefined) continue
      const entry = this.#layer.entry(path)
      this.#remembered.set(path, entry)
      batch.push(entry)
      if (batch.length < 100) continue
      yield batch
      batch = []
    }
    yield batch
  }

  async *changes(): AsyncGenerator<readonly LayerChange[]> {
    const before = this.#remembered
    if (before === undefined) throw new Error('changes before a walk')
    const now = new Map(this.#layer.paths().map((path) => [path, this.#layer.entry(path)]))
    this.#remembered = now
    const gone = [...before.keys()].filter((path) => !now.has(path))
    const different = [...now.keys()].filter((path) => !isSame(before.get(path), now.get(path)))
    const changes = [...gone, ...different].map((path): LayerChange => {
      const present = now.get(path)
      return present === undefined ? { removed: Buffer.from(path, 'latin1') } : { present }
    })
    yield changes.sort((a, b) => compareTreeOrder(pathOf(a), pathOf(b)))
  }

  async *read(paths: readonly Buffer[]): AsyncGenerator<LayerContent> {
    for (const [index, bytes] of paths.entries()) yield* this.#readOne(index, bytes.toString('latin1'))
  }

  async *#readOne(index: number, path: string): AsyncGenerator<LayerContent> {
    const parts = this.#layer.parts(path)
    if (parts === undefined) {
      yield { index, kind: 'missing' }
      return
    }
    for (const part of parts) {
      this.#layer.onRead?.(path, 'part')
      if (!Buffer.isBuffer(part)) yield { index, kind: 'hole', lengthBytes: part.holeBytes }
      else for (let at = 0; at < part.length; at += contentBytesAtATime) yield { index, kind: 'data', bytes: part.subarray(at, at + contentBytesAtATime) }
    }
    this.#layer.onRead?.(path, 'end')
    if (this.#layer.parts(path) === undefined) yield { index, kind: 'missing' }
    else yield { index, kind: 'end', stamp: this.#layer.entry(path).stamp }
  }

  async write(tree: AsyncIterable<LayerWrite>): Promise<void> {
    let open: { readonly path: string; readonly sizeBytes: number; readonly mtimeNs: bigint; parts: MemoryPart[]; at: number } | undefined
    const times = new Map<string, bigint>()
    const close = (): void => {
      if (open === undefined) return
      if (open.at < open.sizeBytes) open.parts.push({ holeBytes: open.sizeBytes - open.at })
      this.#layer.rewrite(open.path, open.parts)
      open = undefined
    }
    for await (const write of tree) {
      if (write.kind === 'data') {
        if (open === undefined || write.offset < open.at || write.offset + write.bytes.length > open.sizeBytes)
          throw new Error('bytes for no file, or outside of it')
        if (write.offset > open.at) open.parts.push({ holeBytes: write.offset - open.at })
        const last = open.parts.at(-1)
        if (Buffer.isBuffer(last) && write.offset === open.at) open.parts[open.parts.length - 1] = Buffer.concat([last, write.bytes])
        else open.parts.push(Buffer.from(write.bytes))
        open.at = write.offset + write.bytes.length
        continue
      }
      close()
      const { entry } = write
      const path = entry.path.toString('latin1')
      if (path.split('/').some((name) => name.length > 255)) throw new MagsError('workspace_damaged', `cannot write ${path}`)
      if (entry.linkTo !== undefined) this.#layer.link(entry.linkTo.toString('latin1'), path)
      else this.#layer.put(path, entry)
      times.set(path, entry.mtimeNs)
      if (entry.kind === 'file' && entry.linkTo === undefined && entry.sizeBytes > 0)
        open = { path, sizeBytes: entry.sizeBytes, mtimeNs: entry.mtimeNs, parts: [], at: 0 }
    }
    close()
    for (const [path, mtimeNs] of times) this.#layer.change(path, { mtimeNs })
  }

  close(): void {}
}

function pathOf(change: LayerChange): Buffer {
  return 'removed' in change ? change.removed : change.present.path
}

function isSame(a: LayerEntry | undefined, b: LayerEntry | undefined): boolean {
  if (a === undefined || b === undefined) return false
  const words = (entry: LayerEntry): string =>
    [entry.kind, entry.mode, entry.uid, entry.gid, entry.links, entry.stamp.inode, entry.stamp.sizeBytes, entry.stamp.mtimeNs, entry.stamp.ctimeNs].join()
  return words(a) === words(b)
}
