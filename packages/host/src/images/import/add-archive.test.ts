import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MagsError } from '@mags/protocol'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { file, folder, hardLink, makeTar, shell, streamOf, symlink, type TarPart } from '../testing/make-tar.ts'
import { addArchive } from './add-archive.ts'
import { ByteReader } from './byte-reader.ts'
import { ImageTree } from './image-tree.ts'
import { importLimits } from './import-limits.ts'
import { ImportMemory } from './import-memory.ts'
import { importWork } from './import-work.ts'
import { Spool } from './spool.ts'
import { treeWrites } from './write-tree.ts'

describe('an archive that becomes a tree', () => {
  let dir: string

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'mags-archive-'))
  })
  afterEach(async () => await rm(dir, { recursive: true, force: true }))

  let count = 0
  async function read(bytes: Buffer, limits: Partial<ReturnType<typeof importLimits>> = {}, pieceBytes?: number): Promise<string[]> {
    await using spool = await Spool.create(join(dir, `spool-${++count}`), 1 << 24)
    const work = importWork(dir, { ...importLimits(1), ...limits }, () => undefined, new AbortController().signal)
    const tree = new ImageTree()
    const reader = new ByteReader(streamOf(bytes, pieceBytes), work.limits.maxBytes)
    await addArchive(tree, reader, {
      spool,
      limits: work.limits,
      counts: work.counts,
      memory: work.memory,
      layer: 0,
      whiteouts: false,
      onProgress: () => undefined,
    })
    const shown: string[] = []
    for await (const item of treeWrites(tree, work)) if (item.kind === 'entry') shown.push(`${item.entry.kind} ${item.entry.path.toString('latin1')}`)
    return shown
  }

  const parts: readonly TarPart[] = [
    ...shell,
    file('a!', 'x'),
    folder('a'),
    file('a/b', 'y'.repeat(1000), { pax: { 'SCHILY.xattr.user.x': 'line\nfeed', mtime: '1.5' } }),
    symlink('l', 'a'),
    hardLink('l/h', 'a/b'),
    file('long', '', { pax: { path: `a/${'n'.repeat(200)}` } }),
    { name: '././@LongLink', type: 'L', content: `a/${'m'.repeat(150)}\0` },
    file('cut'),
  ]

  it('comes out folder by folder in the order of bytes, however it came in', async () => {
    const whole = await read(makeTar(parts))
    expect(whole).toEqual([
      'directory ',
      'directory a',
      'file a/b',
      'file a/h',
      `file a/${'m'.repeat(150)}`,
      `file a/${'n'.repeat(200)}`,
      'file a!',
      'directory bin',
      'file bin/sh',
      'symlink l',
    ])
    for (const pieceBytes of [1, 511, 513, 1 << 20]) expect(await read(makeTar(parts), {}, pieceBytes)).toEqual(whole)
  })

  it('is refused when it has too many entries, or too much text in them', async () => {
    await expect(read(makeTar(parts), { maxEntries: 5 })).rejects.toMatchObject({ code: 'too_large', message: expect.stringContaining('more than 5 entries') })
    await expect(read(makeTar(parts), { maxMetadataBytes: 1000 })).rejects.toMatchObject({ code: 'too_large' })
  })

  it('is refused when headers that only extend others never end, however small each is', async () => {
    const pax = makeTar([file('x', '', { pax: { comment: 'c'.repeat(300) } })]).subarray(0, 1024)
    const longName = makeTar([{ name: '././@LongLink', type: 'L', content: 'n\0' }]).subarray(0, 1024)
    for (const [header, words] of [
      [pax, 'more than 40 extended headers'],
      [longName, 'more than 40 extended headers'],
    ] as const)
      await expect(read(Buffer.concat(Array(100).fill(header)), { maxEntries: 10 })).rejects.toMatchObject({
        code: 'too_large',
        message: expect.stringContaining(words),
      })
    await expect(read(Buffer.concat(Array(100).fill(pax)), { maxMetadataBytes: 10_000 })).rejects.toMatchObject({
      code: 'too_large',
      message: expect.stringContaining('extended headers are larger'),
    })
    // The last one counts, as everywhere.
    expect(
      await read(makeTar([...Array(20).fill({ name: 'x', type: 'L', content: 'first\0' }), { name: 'x', type: 'L', content: 'second\0' }, file('x')])),
    ).toEqual(['directory ', 'file second'])
  })

  it('is refused when its folders go deeper by links than any path could say', async () => {
    const deep: TarPart[] = [folder('d0')]
    for (let level = 1; level <= 25; level++) {
      const inner = `${'x/'.repeat(90)}end`
      deep.push(folder(`d${level - 1}/${inner}`.slice(0, 99), { pax: { path: `d${level - 1}/${inner}` } }))
      deep.push(symlink(`d${level}`, 'x', { pax: { linkpath: `d${level - 1}/${inner}` } }))
    }
    await expect(read(makeTar(deep))).rejects.toMatchObject({ code: 'image_invalid' })
  })

  it('is refused when its whiteouts or links take more steps than an image needs', async () => {
    const add = async (archive: readonly TarPart[]) => {
      await using spool = await Spool.create(join(dir, `spool-${++count}`), 1 << 24)
      const work = importWork(dir, importLimits(1), () => undefined, new AbortController().signal)
      const reader = new ByteReader(streamOf(makeTar(archive)), work.limits.maxBytes)
      const options = { spool, limits: work.limits, counts: work.counts, memory: work.memory, layer: 0, whiteouts: true, onProgress: () => undefined }
      await addArchive(new ImageTree({ mostSteps: 100_000 }), reader, options)
    }
    const tooMany = { code: 'image_invalid', message: expect.stringContaining('too many folders') }
    const files = Array.from({ length: 500 }, (_, number) => file(`d/${number}`))
    // Each looks at all that this archive itself has put there.
    await expect(add([...files, ...Array.from({ length: 500 }, () => file('.wh..wh..opq'))])).rejects.toMatchObject(tooMany)
    const links = [folder('a'), symlink('l0', 'a')]
    for (let number = 1; number < 39; number++) links.push(symlink(`l${number}`, '', { pax: { linkpath: `${'a/../'.repeat(600)}l${number - 1}` } }))
    await expect(add([...links, ...Array.from({ length: 50 }, (_, number) => file(`l38/${number}`))])).rejects.toMatchObject(tooMany)
    await expect(add([...links.slice(0, 3), ...files, file('l2/end')])).resolves.toBeUndefined()
  })

  it('is refused when all archives that are read take too much memory, which comes back', () => {
    const pool = { leftBytes: 1000 }
    const one = new ImportMemory(pool)
    one.take(900)
    using other = new ImportMemory(pool)
    expect(() => other.take(200)).toThrow(expect.objectContaining({ code: 'no_capacity' }))
    one[Symbol.dispose]()
    other.take(200)
    expect(pool.leftBytes).toBe(800)
  })

  it('is a tree or an error with words, whatever is broken in it', async () => {
    const good = makeTar(parts)
    let seed = 12_345
    const random = (below: number) => {
      // A linear congruential generator (Numerical Recipes): the same bytes in each run.
      seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0
      return seed % below
    }
    let refused = 0
    for (let round = 0; round < 1500; round++) {
      const bytes = Buffer.from(good)
      for (let change = 0; change <= random(3); change++) {
        const block = random(bytes.length / 512) * 512
        bytes[block + random(512)] = random(256)
        if (random(2) === 0) fixChecksum(bytes.subarray(block, block + 512))
      }
      await read(random(10) === 0 ? bytes.subarray(0, random(bytes.length)) : bytes).catch((error: unknown) => {
        expect(error).toBeInstanceOf(MagsError)
        expect(['image_invalid', 'too_large']).toContain((error as MagsError).code)
        refused++
      })
    }
    expect(refused).toBeGreaterThan(100)
  })
})

/** Otherwise hardly anything broken would get any further. */
function fixChecksum(block: Buffer) {
  block.fill(' ', 148, 156)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
}
