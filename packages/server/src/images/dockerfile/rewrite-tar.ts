import { MagsError } from '@mags/protocol'
import { Header, Parser, Pax, type ReadEntry } from 'tar'
import { plainTar } from './plain-tar.ts'

export interface TarLimits {
  readonly maxEntries: number
  readonly maxBytes: number
}

/** What an entry becomes; undefined leaves it out. */
export interface Rewritten {
  readonly path: string
  readonly mode?: number | undefined
  readonly uid?: number | undefined
  readonly gid?: number | undefined
}

/** Headers, and zeros to the end of the last block. */
const mostPerEntryBytes = 2048
/** They are held in memory. */
const mostNamesBytes = 64 * 1024 ** 2

const kinds: Readonly<Record<string, 'file' | 'directory' | 'symlink' | 'link'>> = {
  File: 'file',
  OldFile: 'file',
  ContiguousFile: 'file',
  Directory: 'directory',
  GNUDumpDir: 'directory',
  SymbolicLink: 'symlink',
  Link: 'link',
}

/** An entry as it was checked: its path is relative, without `.` and `..` and a slash at its end. */
export interface CheckedEntry {
  readonly path: string
  readonly kind: 'file' | 'directory' | 'symlink' | 'link'
  readonly target: string
  readonly mode: number
  readonly sizeBytes: number
}

/** Reads an archive of others. `take` gets each entry once it was checked, and has to consume or `resume` it. Rejects with MagsError 'image_invalid' naming the entry and the rule, 'too_large', or what `take` throws. */
export async function readEntries(
  content: AsyncIterable<Uint8Array>,
  limits: TarLimits,
  take: (entry: CheckedEntry, source: ReadEntry) => void,
  stopped?: AbortSignal,
): Promise<void> {
  let entries = 0
  let bytes = 0
  let names = 0
  let fault: unknown
  const ended = Promise.withResolvers<void>()
  const parser = new Parser({
    strict: true,
    maxMetaEntrySize: 64 * 1024,
    onReadEntry: (source) => {
      try {
        if (fault !== undefined) return void source.resume()
        entries++
        bytes += source.size
        names += source.path.length + (source.linkpath?.length ?? 0)
        if (entries > limits.maxEntries) throw new MagsError('too_large', `the archive has more than ${limits.maxEntries.toLocaleString('en-US')} entries`)
        if (bytes > limits.maxBytes) throw new MagsError('too_large', `the files of the archive have more than ${Math.floor(limits.maxBytes / 1024 ** 2)} MiB`)
        if (names > mostNamesBytes) throw new MagsError('too_large', `the names in the archive have more than ${mostNamesBytes / 1024 ** 2} MiB`)
        take(checkEntry(source), source)
      } catch (error) {
        fault = error
        source.resume()
      }
    },
  })
  parser.on('end', () => ended.resolve())
  parser.on('error', (error) => ended.reject(error))
  parser.on('abort', (error) => ended.reject(error))
  stopped?.addEventListener('abort', () => ended.reject(stopped.reason), { once: true })
  ended.promise.catch(() => undefined)
  try {
    for await (const part of plainTar(content, limits.maxBytes + limits.maxEntries * mostPerEntryBytes)) {
      if (fault !== undefined) throw fault
      if (!parser.write(Buffer.from(part))) await Promise.race([new Promise((resolve) => parser.once('drain', resolve)), ended.promise])
    }
    parser.end()
    await ended.promise
  } catch (error) {
    if (error instanceof Error && 'tarCode' in error) throw new MagsError('image_invalid', `the archive is damaged: ${error.message}`, { cause: error })
    throw error
  }
  if (fault !== undefined) throw fault
}

/** The same archive with other names, and what is not wanted left out; owned by root unless said otherwise. Rejects as `readEntries`. */
export async function* rewriteTar(
  content: AsyncIterable<Uint8Array>,
  limits: TarLimits,
  rewrite: (entry: CheckedEntry) => Rewritten | undefined,
): AsyncGenerator<Uint8Array> {
  const stop = new AbortController()
  const out = new OutputQueue()
  const links = new Map<string, string>()
  const take = (entry: CheckedEntry, source: ReadEntry) => {
    const to = rewrite(entry)
    if (to === undefined) return void source.resume()
    links.set(entry.path, to.path)
    const target = entry.kind === 'link' ? links.get(entry.target) : entry.target
    if (target === undefined)
      throw new MagsError(
        'image_invalid',
        `${entry.path} is a hard link to ${entry.target}, which is not copied with it; copy both, or pack with --hard-dereference`,
      )
    out.push(writeHeader(entry, to, target, source.mtime))
    if (entry.kind === 'file') out.take(source, entry.sizeBytes)
    else source.resume()
  }
  readEntries(content, limits, take, stop.signal).then(
    () => out.end(),
    (error: unknown) => out.end({ error }),
  )
  try {
    yield* out.read()
    yield Buffer.alloc(2 * blockBytes)
  } finally {
    // Nobody reads the rest, so what waits for a reader must not wait on.
    stop.abort(new Error('the archive is not read any more'))
  }
}

const blockBytes = 512
const queuedBytes = 256 * 1024

/** What was read and not yet taken on; entries wait while there is much of it. */
class OutputQueue {
  #parts: Uint8Array[] = []
  #bytes = 0
  #waiting: ReadEntry | undefined
  #changed = Promise.withResolvers<void>()
  #ended: { readonly error?: unknown } | undefined

  push(part: Uint8Array): void {
    this.#parts.push(part)
    this.#bytes += part.length
    this.#changed.resolve()
  }

  /** The content of an entry, and zeros to the end of its last block. */
  take(source: ReadEntry, sizeBytes: number): void {
    source.on('end', () => this.push(Buffer.alloc((blockBytes - (sizeBytes % blockBytes)) % blockBytes)))
    source.on('data', (part: Buffer) => {
      this.push(part)
      if (this.#bytes < queuedBytes) return
      source.pause()
      this.#waiting = source
    })
  }

  end(end: { readonly error?: unknown } = {}): void {
    this.#ended = end
    this.#changed.resolve()
  }

  async *read(): AsyncGenerator<Uint8Array> {
    for (;;) {
      // Renewed before looking, so that a change meanwhile is not missed.
      this.#changed = Promise.withResolvers()
      const parts = this.#parts
      this.#parts = []
      this.#bytes = 0
      yield* parts
      this.#waiting?.resume()
      this.#waiting = undefined
      if (this.#parts.length > 0) continue
      if (this.#ended && 'error' in this.#ended) throw this.#ended.error
      if (this.#ended) return
      await this.#changed.promise
    }
  }
}

const types = { file: 'File', directory: 'Directory', symlink: 'SymbolicLink', link: 'Link' } as const

function writeHeader(entry: CheckedEntry, to: Rewritten, target: string, mtime: Date | undefined): Buffer {
  const fields = {
    type: types[entry.kind],
    path: entry.kind === 'directory' ? `${to.path}/` : to.path,
    linkpath: target,
    mode: to.mode ?? entry.mode,
    uid: to.uid ?? 0,
    gid: to.gid ?? 0,
    size: entry.kind === 'file' ? entry.sizeBytes : 0,
    mtime: new Date(Math.floor((mtime?.getTime() ?? 0) / 1000) * 1000),
  }
  const block = Buffer.alloc(blockBytes)
  const needsPax = new Header(fields).encode(block, 0)
  const { path, linkpath, size } = fields
  return needsPax ? Buffer.concat([new Pax({ path, linkpath, size }).encode(), block]) : block
}

function checkEntry(source: ReadEntry): CheckedEntry {
  const kind = kinds[source.type]
  const shown = JSON.stringify(source.path.slice(0, 200))
  if (kind === undefined) throw new MagsError('image_invalid', `${shown} is neither a file, a folder nor a link`)
  const path = relativePath(source.path)
  if (path === undefined) throw new MagsError('image_invalid', `${shown} leads out of the archive`)
  const target = source.linkpath ?? ''
  if (kind === 'link') {
    const inside = relativePath(target)
    if (inside === undefined) throw new MagsError('image_invalid', `${shown} is a hard link that leads out of the archive`)
    return { path, kind, target: inside, mode: source.mode ?? 0o644, sizeBytes: 0 }
  }
  return { path, kind, target, mode: (source.mode ?? 0o644) & 0o7777, sizeBytes: source.size }
}

/** Undefined when it leads out, or no system takes it. */
function relativePath(path: string): string | undefined {
  if (path.startsWith('/') || path.includes('\0') || Buffer.byteLength(path) > 4095) return undefined
  const names = path.split('/').filter((name) => name !== '' && name !== '.')
  return names.includes('..') ? undefined : names.join('/')
}
