import { createReadStream, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { Parser } from 'tar'
import { afterAll, describe, expect, it } from 'vitest'
import { type EntryOf, tarOf } from '../testing/tar-of.ts'
import { ContextArchive, contextLimits } from './context-archive.ts'
import { readEntries, rewriteTar } from './rewrite-tar.ts'

const folder = mkdtempSync(join(tmpdir(), 'mags-context-'))
afterAll(() => rmSync(folder, { recursive: true }))
let count = 0

async function contextOf(entries: Readonly<Record<string, EntryOf>>, pack = (bytes: Buffer) => bytes): Promise<ContextArchive> {
  const file = join(folder, `${++count}.tar`)
  writeFileSync(file, pack(await tarOf(entries)))
  return await ContextArchive.open(file)
}

/** Paths and contents of an archive. */
async function entriesOf(tar: AsyncIterable<Uint8Array>): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  const parser = new Parser({
    onReadEntry: (entry) => {
      let text = `${entry.mode?.toString(8)} ${entry.uid} `
      if (entry.linkpath) text += `-> ${entry.linkpath}`
      entry.on('data', (part: Buffer) => {
        text += part.toString()
      })
      entry.on('end', () => {
        found[entry.path] = text
      })
    },
  })
  for await (const part of tar) parser.write(Buffer.from(part))
  parser.end()
  return found
}

describe('ContextArchive', () => {
  it('finds what a pattern names, also through links', async () => {
    const context = await contextOf({
      './a.txt': 'A',
      'b.txt': 'B',
      'dir/x/c': 'C',
      link: { type: 'SymbolicLink', target: 'dir/x' },
      'dir/up': { type: 'SymbolicLink', target: '../a.txt' },
    })
    const paths = async (pattern: string) => (await context.match(pattern)).map(({ path, name, isFolder }) => `${path} ${name}${isFolder ? '/' : ''}`)
    expect(await paths('*.txt')).toEqual(['a.txt a.txt', 'b.txt b.txt'])
    expect(await paths('/dir/')).toEqual(['dir dir/'])
    expect(await paths('.')).toEqual([' /'])
    expect(await paths('../../a.txt')).toEqual(['a.txt a.txt'])
    expect(await paths('link')).toEqual(['dir/x link/'])
    expect(await paths('link/c')).toEqual(['dir/x/c c'])
    expect(await paths('dir/up')).toEqual(['a.txt up'])
    expect(await paths('no*')).toEqual([])
    expect(await context.readText('dir/up', 10)).toBe('A')
    await expect(context.readText('dir', 10)).rejects.toThrow('there is no file dir')
    await expect(context.readText('a.txt', 0)).rejects.toThrow('has more than')
  })

  it('reads packed archives', async () => {
    expect(await (await contextOf({ Dockerfile: 'FROM x' }, gzipSync)).readText('Dockerfile', 100)).toBe('FROM x')
  })

  it.each([
    [{ '../x': 'a' }, '"../x" leads out of the archive'],
    [{ '/etc/passwd': 'a' }, '"/etc/passwd" leads out of the archive'],
    [{ 'a/../../x': 'a' }, 'leads out of the archive'],
    [{ dev: { type: 'CharacterDevice' } }, '"dev" is neither a file, a folder nor a link'],
    [{ a: 'x', './a': 'y' }, 'a is in the context twice'],
    [{ h: { type: 'Link', target: '../../etc/shadow' } }, 'hard link that leads out'],
  ] as const)('refuses %j', async (entries, words) => {
    await expect(contextOf(entries as Record<string, EntryOf>)).rejects.toThrow(words)
  })

  it('refuses what is no archive, and one that is cut short', async () => {
    const file = join(folder, 'broken')
    writeFileSync(file, Buffer.alloc(5000, 'x'))
    await expect(ContextArchive.open(file)).rejects.toMatchObject({ code: 'image_invalid' })
    writeFileSync(file, (await tarOf({ a: 'x'.repeat(5000) })).subarray(0, 2000))
    await expect(ContextArchive.open(file)).rejects.toMatchObject({ code: 'image_invalid' })
  })

  it('refuses what becomes too large when it is unpacked, and what is packed twice', async () => {
    const file = join(folder, 'bomb')
    const limits = { maxEntries: 10, maxBytes: 1000 }
    const plain = await tarOf({ a: 'A' })
    // Behind its end the parser would go on unpacking zeros for ever.
    writeFileSync(file, gzipSync(Buffer.concat([plain, Buffer.alloc(100_000)])))
    const read = (path: string) => readEntries(createReadStream(path), limits, (_entry, source) => source.resume())
    await expect(read(file)).rejects.toMatchObject({ code: 'too_large', message: expect.stringContaining('when it is unpacked') })
    writeFileSync(file, gzipSync(gzipSync(plain)))
    await expect(read(file)).rejects.toMatchObject({ code: 'image_invalid', message: expect.stringContaining('packed more than once') })
    writeFileSync(file, gzipSync(plain).subarray(0, 60))
    await expect(read(file)).rejects.toMatchObject({ code: 'image_invalid' })
    writeFileSync(file, zstdCompressSync(plain))
    await expect(read(file)).resolves.toBeUndefined()
  })

  it('finds what a pattern means among many folders in no more steps than there are names', async () => {
    const many = Object.fromEntries(Array.from({ length: 8000 }, (_, number) => [`d${number}/f`, '']))
    const context = await contextOf(many)
    expect(await context.match('*/*')).toHaveLength(8000)
    expect(await context.match('*/x')).toHaveLength(0)
  })
})

describe('rewriteTar', () => {
  async function* bytes(entries: Readonly<Record<string, EntryOf>>) {
    yield await tarOf(entries)
  }

  it('renames, leaves out, and gives to others', async () => {
    const source = bytes({
      'src/a': 'A',
      'src/b': 'B',
      'src/d': { type: 'Directory', mode: 0o700 },
      'src/hard': { type: 'Link', target: 'src/a' },
      other: 'no',
    })
    const tar = rewriteTar(source, contextLimits, ({ path }) => (path.startsWith('src/') ? { path: `x/${path.slice(4)}`, uid: 7, gid: 8 } : undefined))
    expect(await entriesOf(tar)).toEqual({ 'x/a': '644 7 A', 'x/b': '644 7 B', 'x/d/': '700 7 ', 'x/hard': '755 7 -> x/a' })
  })

  it('keeps all of many, large, empty and with long names', async () => {
    const long = `x/${'deep/'.repeat(60)}file`
    const entries: Record<string, EntryOf> = { [long.slice(0, 99)]: 'short', empty: '', large: 'L'.repeat(3_000_000) }
    for (let index = 0; index < 200; index++)
      Object.assign(entries, {
        [`f${index}`]: String(index),
        [`l${index}`]: { type: 'SymbolicLink', target: 'x' },
        [`d${index}`]: { type: 'Directory' },
        [`e${index}`]: '',
      })
    const found = await entriesOf(rewriteTar(bytes(entries), contextLimits, ({ path }) => ({ path: path === 'empty' ? long : path })))
    expect(Object.keys(found)).toHaveLength(803)
    expect(found[long]).toBe('644 0 ')
    expect(found.large?.length).toBe(3_000_006)
    expect([found.f199, found.l199, found['d199/'], found.e199]).toEqual(['644 0 199', '755 0 -> x', '755 0 ', '644 0 '])
  })

  it('refuses a hard link without its file, and too much', async () => {
    const link = rewriteTar(bytes({ a: 'A', hard: { type: 'Link', target: 'a' } }), contextLimits, ({ path }) => (path === 'a' ? undefined : { path }))
    await expect(entriesOf(link)).rejects.toThrow('hard is a hard link to a, which is not copied with it')
    const much = rewriteTar(bytes({ a: 'AAAA', b: 'BBBB' }), { maxEntries: 10, maxBytes: 7 }, ({ path }) => ({ path }))
    await expect(entriesOf(much)).rejects.toMatchObject({ code: 'too_large' })
    const many = rewriteTar(bytes({ a: '', b: '', c: '' }), { maxEntries: 2, maxBytes: 7 }, ({ path }) => ({ path }))
    await expect(entriesOf(many)).rejects.toMatchObject({ code: 'too_large' })
  })

  it('ends when nobody reads on', async () => {
    for await (const _part of rewriteTar(bytes({ a: 'A'.repeat(5_000_000), b: 'B'.repeat(5_000_000) }), contextLimits, ({ path }) => ({ path }))) break
  })
})
