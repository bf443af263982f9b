import { constants, type Stats } from 'node:fs'
import { lstat, open, readdir, readlink } from 'node:fs/promises'
import { CliError } from '../exit/cli-error.ts'
import { writePaxRecords } from './pax-records.ts'
import { padding } from './read-tar.ts'
import { binaryPath, pathBytes, pathForPeople, type TarEntry } from './tar-entry.ts'
import { blockBytes, maxOctal, writeHeader } from './tar-header.ts'

export interface PackOptions {
  /** Hears of what is not packed: sockets, devices, pipes. */
  readonly onSkip?: (path: string) => void
  /** What is left out; below a folder that is, only what is excepted again. */
  readonly ignore?: { ignores(path: string): boolean; readonly hasExceptions: boolean }
}

const partBytes = 256 * 1024
/** What fits into a header by itself (the prefix field is not used). */
const maxHeaderPath = 100

/**
 * A folder's content as a tar archive (pax), while it is read: names relative to the folder, in order, links as links, owners left out. A
 * file that becomes shorter meanwhile is an error, for its size has gone out before.
 */
export async function* packFolder(folder: string, options: PackOptions = {}): AsyncGenerator<Uint8Array> {
  yield* packEntries(binaryPath(folder), '', options)
  yield Buffer.alloc(2 * blockBytes)
}

async function* packEntries(root: string, folder: string, options: PackOptions): AsyncGenerator<Uint8Array> {
  const names = (await readdir(pathBytes(`${root}/${folder}`), { encoding: 'buffer' })).map(binaryPath).sort()
  for (const name of names) {
    const path = folder === '' ? name : `${folder}/${name}`
    const place = pathBytes(`${root}/${path}`)
    const stats = await lstat(place)
    const ignored = options.ignore?.ignores(path) === true
    if (ignored && !(stats.isDirectory() && options.ignore?.hasExceptions)) continue
    if (stats.isDirectory()) {
      if (!ignored) yield* headers('5', { ...attributes(stats), path: `${path}/`, target: '', sizeBytes: 0 })
      yield* packEntries(root, path, options)
    } else if (stats.isSymbolicLink()) {
      const target = binaryPath(await readlink(place, { encoding: 'buffer' }))
      yield* headers('2', { ...attributes(stats), path, target, sizeBytes: 0 })
    } else if (stats.isFile()) yield* packFile(place, path)
    else options.onSkip?.(pathForPeople(path))
  }
}

async function* packFile(place: Buffer, path: string): AsyncGenerator<Uint8Array> {
  // It was a file a moment ago; should it be a link or a pipe by now, it is not opened.
  await using file = await open(place, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  const stats = await file.stat()
  if (!stats.isFile()) throw changed(path)
  yield* headers('0', { ...attributes(stats), path, target: '', sizeBytes: stats.size })
  for (let at = 0; at < stats.size; ) {
    const buffer = Buffer.allocUnsafe(Math.min(partBytes, stats.size - at))
    const { bytesRead } = await file.read(buffer, 0, buffer.length, at)
    if (bytesRead === 0) throw changed(path)
    at += bytesRead
    yield buffer.subarray(0, bytesRead)
  }
  yield Buffer.alloc(padding(stats.size))
}

function* headers(typeFlag: string, entry: Omit<TarEntry, 'type'>): Generator<Uint8Array> {
  const records = new Map<string, string>()
  if (entry.path.length > maxHeaderPath) records.set('path', entry.path)
  if (entry.target.length > maxHeaderPath) records.set('linkpath', entry.target)
  if (entry.sizeBytes > maxOctal) records.set('size', String(entry.sizeBytes))
  if (records.size > 0) {
    const body = writePaxRecords(records)
    yield writeHeader('x', { path: 'pax', target: '', mode: 0o644, modifiedAt: 0, sizeBytes: body.length })
    yield body
    yield Buffer.alloc(padding(body.length))
  }
  yield writeHeader(typeFlag, entry)
}

function attributes(stats: Stats): Pick<TarEntry, 'mode' | 'modifiedAt'> {
  return { mode: stats.mode & 0o777, modifiedAt: stats.mtimeMs / 1000 }
}

function changed(path: string): CliError {
  return new CliError(`${pathForPeople(path)} changed while it was read. Copy it again when nothing writes to it.`, { code: 'file_changed' })
}
