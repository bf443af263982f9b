import { execFileSync } from 'node:child_process'
import { lstat, mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type HandmadeEntry, inParts, tarBytes } from '../testing/tar-bytes.ts'
import { TarError } from './tar-error.ts'
import { type UnpackOptions, unpackTar } from './unpack-tar.ts'

/** A folder to unpack in, and one beside it that must stay as it is. */
async function setUp() {
  const path = await mkdtemp(join(tmpdir(), 'mags-unpack-'))
  const target = join(path, 'target')
  const outside = join(path, 'outside')
  await mkdir(target)
  await mkdir(outside)
  await writeFile(join(outside, 'secret'), 'mine')
  const unpackBytes = (bytes: Buffer, options?: UnpackOptions) => unpackTar(inParts(bytes), target, options)
  return {
    target,
    outside,
    unpackBytes,
    unpack: (...entries: HandmadeEntry[]) => unpackBytes(tarBytes(...entries)),
    /** Names in the target, and a failure when anything outside was touched. */
    async names() {
      expect(await readdir(path)).toEqual(['outside', 'target'])
      expect(await readdir(outside)).toEqual(['secret'])
      expect(await readFile(join(outside, 'secret'), 'utf8')).toBe('mine')
      // Node's own recursive listing goes through links.
      return execFileSync('find', [target, '-mindepth', '1', '-printf', '%P\\n'], { encoding: 'utf8' }).split('\n').slice(0, -1).sort()
    },
    [Symbol.asyncDispose]: () => rm(path, { recursive: true }),
  }
}

describe('unpackTar', () => {
  it('makes files, folders and links with their permissions and times, without setuid and setgid', async () => {
    await using dir = await setUp()
    const unpacked = await dir.unpack(
      { path: './', flag: '5' },
      { path: 'closed/', flag: '5', mode: 0o2555 },
      { path: 'closed/run', mode: 0o6755, content: 'x'.repeat(1000) },
      { path: 'implied/deep/file', content: 'y' },
      { path: 'link', flag: '2', target: '/etc/hostname' },
      { path: 'second', flag: '1', target: 'closed/run' },
      { path: 'null', flag: '3' },
    )
    expect(unpacked).toEqual({ files: 4, bytes: 1001, skipped: ['null'] })
    expect(await dir.names()).toEqual(['closed', 'closed/run', 'implied', 'implied/deep', 'implied/deep/file', 'link', 'second'])
    const run = await stat(join(dir.target, 'closed/run'))
    expect([run.mode & 0o7777, run.mtimeMs, run.nlink]).toEqual([0o755, 1_700_000_000_000, 2])
    const closed = await stat(join(dir.target, 'closed'))
    expect([closed.mode & 0o7777, closed.mtimeMs]).toEqual([0o555, 1_700_000_000_000])
    expect(await readlink(join(dir.target, 'link'))).toBe('/etc/hostname')
  })

  it('replaces files and links in their place, and never what a link points to', async () => {
    await using dir = await setUp()
    await writeFile(join(dir.target, 'file'), 'old')
    await symlink(join(dir.outside, 'secret'), join(dir.target, 'link'))
    await dir.unpack({ path: 'file', content: 'new' }, { path: 'link', content: 'overwritten' })
    expect(await readFile(join(dir.target, 'file'), 'utf8')).toBe('new')
    expect((await lstat(join(dir.target, 'link'))).isFile()).toBe(true)
    expect(await dir.names()).toEqual(['file', 'link'])
  })

  it.each([
    ['a way up', { path: '../outside/secret', content: 'x' }],
    ['a way up in the middle', { path: 'a/../../outside/secret', content: 'x' }],
    ['a way up by an extended header', { path: 'fine', content: 'x', pax: { path: '../outside/secret' } }],
    ['an absolute path', { path: '/tmp/x', content: 'x' }],
    ['an empty path', { path: '', content: 'x' }],
    ['a file in the place of the folder', { path: './.', content: 'x' }],
    ['a NUL in a path', { path: 'fine', content: 'x', pax: { path: 'a\0b' } }],
    ['a name over 255 bytes', { path: 'fine', content: 'x', pax: { path: 'n'.repeat(256) } }],
    ['a path over 4096 bytes', { path: 'fine', content: 'x', pax: { path: 'n/'.repeat(2100) } }],
    ['a path of 100 KB', { path: 'fine', content: 'x', pax: { path: 'n'.repeat(100_000) } }],
    ['a GNU name of 100 KB', { path: 'long', flag: 'L', content: 'n'.repeat(100_000) }],
    ['a second name of a file outside', { path: 'got', flag: '1', target: '../outside/secret' }],
    ['a second name by an absolute path', { path: 'got', flag: '1', target: '/etc/passwd' }],
    ['a second name of nothing', { path: 'got', flag: '1', target: 'missing' }],
    ['a link to nothing', { path: 'got', flag: '2', target: '' }],
    ['a number that is none', { path: 'fine', pax: { size: '-5' } }],
  ] satisfies [string, HandmadeEntry][])('refuses %s', async (_what, entry) => {
    await using dir = await setUp()
    await expect(dir.unpack(entry)).rejects.toThrow(TarError)
    expect(await dir.names()).toEqual([])
  })

  it('does not go through links that the archive made', async () => {
    for (const way of ['../outside', '../outside/.']) {
      await using dir = await setUp()
      await expect(dir.unpack({ path: 'd', flag: '2', target: way }, { path: 'd/secret', content: 'x' })).rejects.toThrow(/goes through "d", which is a link/)
      expect(await dir.names()).toEqual(['d'])
      await expect(dir.unpack({ path: 'd/', flag: '5' })).rejects.toThrow(/is a link/)
      // What a first copy left behind does not help a second one.
      await expect(dir.unpack({ path: 'd/other', content: 'x' })).rejects.toThrow(/is a link/)
      await expect(dir.unpack({ path: 'got', flag: '1', target: 'd/secret' })).rejects.toThrow(/is a link/)
      expect(await dir.names()).toEqual(['d'])
    }
  })

  it('does not make second names of links, nor put a link in the place of a folder it went through', async () => {
    await using dir = await setUp()
    await expect(dir.unpack({ path: 'l', flag: '2', target: '../outside/secret' }, { path: 'got', flag: '1', target: 'l' })).rejects.toThrow(/which is no file/)
    await expect(
      dir.unpack({ path: 'sub/', flag: '5' }, { path: 'sub', flag: '2', target: '../outside' }, { path: 'sub/secret', content: 'x' }),
    ).rejects.toThrow(/is a folder here/)
    expect(await dir.names()).toEqual(['l', 'sub'])
  })

  it('refuses what is too big before writing it, and too many entries', async () => {
    await using dir = await setUp()
    await expect(dir.unpack({ path: 'big', pax: { size: '999999999999999' } })).rejects.toThrow(/more than/)
    const limits = { maxTotalBytes: 10, maxEntries: 3 }
    await expect(dir.unpackBytes(tarBytes({ path: 'a', content: '123456' }, { path: 'b', content: '123456' }), { limits })).rejects.toThrow(
      /more than 10 bytes/,
    )
    const many = Array.from({ length: 9 }, (_each, index) => ({ path: `f${index}` }))
    await expect(dir.unpackBytes(tarBytes(...many), { limits })).rejects.toThrow(/more than 3 entries/)
    expect(await dir.names()).not.toContain('big')
  })

  it('names an archive that is cut short, wherever, and leaves no half file', async () => {
    const whole = tarBytes({ path: 'a', content: 'x'.repeat(600) }, { path: 'b', content: 'y', pax: { mtime: '5.5' } })
    for (let length = 0; length < whole.length - 1024; length += 256) {
      await using dir = await setUp()
      await expect(dir.unpackBytes(whole.subarray(0, length))).rejects.toThrow(/ends too early/)
      for (const name of await dir.names()) expect((await stat(join(dir.target, name))).size).toBe(name === 'a' ? 600 : 1)
    }
  })

  it('refuses a header whose checksum is wrong, and bytes that are no archive', async () => {
    await using dir = await setUp()
    const bytes = tarBytes({ path: 'a', content: 'x' })
    bytes[0] = 'b'.charCodeAt(0)
    await expect(dir.unpackBytes(bytes)).rejects.toThrow(/checksum/)
    await expect(dir.unpackBytes(Buffer.from('<html>'.repeat(200)))).rejects.toThrow(/header is missing/)
    expect(await dir.names()).toEqual([])
  })

  it('stops when it is asked to, and leaves no half file', async () => {
    await using dir = await setUp()
    const controller = new AbortController()
    const options = { signal: controller.signal, onProgress: () => controller.abort(new Error('enough')) }
    await expect(dir.unpackBytes(tarBytes({ path: 'a', content: 'x'.repeat(5000) }), options)).rejects.toThrow('enough')
    expect(await dir.names()).toEqual([])
  })

  it('reads what GNU tar writes, in each of its forms', async () => {
    const long = `${'d'.repeat(150)}/${'n'.repeat(200)}`
    for (const format of ['gnu', 'pax', 'ustar']) {
      await using dir = await setUp()
      await using source = await setUp()
      const path = format === 'ustar' ? `${'d'.repeat(60)}/${'n'.repeat(80)}` : long
      await mkdir(join(source.target, path, '..'), { recursive: true })
      await writeFile(join(source.target, path), 'long')
      await writeFile(Buffer.concat([Buffer.from(`${source.target}/`), Buffer.from([0xff, 0x61])]), 'bytes')
      const tar = execFileSync('tar', [`--format=${format}`, '-C', source.target, '-cf', '-', '.'])
      await dir.unpackBytes(tar)
      expect(await readFile(join(dir.target, path), 'utf8')).toBe('long')
      const names = await readdir(dir.target, { encoding: 'buffer' })
      expect(names.some((name) => name.equals(Buffer.from([0xff, 0x61])))).toBe(true)
    }
  })
})
