import { lstat, mkdir, readdir, readFile, readlink, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import type { ImageInfo } from '@mags/protocol'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { run } from '../run.ts'
import { type ImageGround, imageGround, missingForImages } from './testing/image-ground.ts'
import { base256, file, folder, hardLink, makeTar, shell, streamOf, symlink, type TarPart } from './testing/make-tar.ts'

const required = process.env.MAGS_REQUIRE_NATIVE === '1'
if (missingForImages.length > 0 && !required) console.warn(`skipped: tests that write images need ${missingForImages.join(' and ')}`)

/** VFS_CAP_REVISION_2 with CAP_NET_RAW permitted; it has a line feed for a reader of text to fall over. */
const capability = Buffer.from('010000020020000a000000000000000000000000', 'hex')

describe.skipIf(missingForImages.length > 0 && !required)('images of this machine', () => {
  let ground: ImageGround

  beforeEach(async () => {
    ground = await imageGround()
  })
  afterEach(async () => await ground[Symbol.asyncDispose]())

  const importBytes = (bytes: Buffer, name = 'made', abort?: AbortSignal) =>
    ground.images.create(name, { kind: 'archive', reference: 'image.tar', content: streamOf(bytes) }, (words) => ground.words.push(words), abort)
  const importParts = (parts: readonly TarPart[], name?: string) => importBytes(makeTar([...shell, ...parts]), name)
  const rootOf = ({ name, digest }: ImageInfo) => join(ground.dir, name, digest.slice(7), 'rootfs')

  const refused: Record<string, { readonly parts: readonly TarPart[]; readonly rule: RegExp }> = {
    "'..' in a name": { parts: [file('etc/../../outside', 'x')], rule: /entry "etc\/..\/..\/outside": its path has '\.\.'/ },
    'an absolute name': { parts: [file('/etc/passwd', 'x')], rule: /entry "\/etc\/passwd": its path is absolute/ },
    "'..' in an extended header": { parts: [file('x', 'x', { pax: { path: '../outside' } })], rule: /entry "\.\.\/outside": its path has '\.\.'/ },
    'a hard link to an absolute path': { parts: [hardLink('x', '/etc/passwd')], rule: /the target of its hard link, "\/etc\/passwd", is absolute/ },
    'a hard link that leads out': { parts: [hardLink('x', '../../outside')], rule: /the target of its hard link, .* has '\.\.'/ },
    'a hard link to nothing': { parts: [hardLink('x', 'nothing')], rule: /which is not in the archive before it/ },
    'a hard link to a folder': { parts: [hardLink('x', 'bin')], rule: /a hard link to a folder/ },
    'a file and a folder of one name': { parts: [file('x', '1'), folder('x')], rule: /entry "x": the archive has it twice, as file and as directory/ },
    'a folder and a link of one name': { parts: [folder('x'), symlink('x', '/')], rule: /twice, as directory and as symlink/ },
    'a file in a file': { parts: [file('x', '1'), file('x/y', '2')], rule: /entry "x\/y": something on its way is no folder/ },
    'a path through links in a circle': { parts: [symlink('a', 'b'), symlink('b', 'a'), file('a/x')], rule: /something on its way is no folder/ },
    'a name over 255 bytes': { parts: [file('x', '', { pax: { path: 'n'.repeat(256) } })], rule: /a name in its path has 256 bytes/ },
    'a path over 4,095 bytes': { parts: [file('x', '', { pax: { path: 'n/'.repeat(2048) } })], rule: /its path has 4096 bytes/ },
    'a NUL in a name': { parts: [file('x', '', { pax: { path: 'a\0b' } })], rule: /its path has a NUL byte/ },
    'a negative size': { parts: [file('x', '', { sizeField: base256(-1n, 12) })], rule: /entry "x": its size is -1/ },
    'a size that is no number': { parts: [file('x', '', { sizeField: Buffer.from('what is it\0\0') })], rule: /its size is no number/ },
    'a size beyond all numbers': { parts: [file('x', '', { sizeField: base256(2n ** 80n, 12) })], rule: /its size is no number that can be/ },
    'a size larger than the archive': {
      parts: [file('x', '', { sizeField: base256(2n ** 40n, 12) })],
      rule: /entry "x": the archive ends in the middle of it/,
    },
    'a negative size in an extended header': { parts: [file('x', '', { pax: { size: '-5' } })], rule: /its size is -5/ },
    'an owner that no sandbox has': { parts: [file('x', '', { uid: 65_536 })], rule: /its owner is 65536; sandboxes have 0 to 65535/ },
    'a negative owner': { parts: [file('x', '', { uidField: base256(-2n, 8) })], rule: /its owner is -2/ },
    'a group that no sandbox has': { parts: [file('x', '', { pax: { gid: '4294967295' } })], rule: /its group is 4294967295/ },
    'a sparse file': { parts: [file('x', '', { type: 'S' })], rule: /sparse files/ },
    'a sparse file in an extended header': { parts: [file('x', '', { pax: { 'GNU.sparse.realsize': '99999999999999' } })], rule: /sparse files/ },
    'an entry of an unknown type': { parts: [file('x', '', { type: 'V' })], rule: /entries of type "V" cannot be in an image/ },
    'a header for all entries': { parts: [file('x', '15 path=../out\n', { type: 'g' })], rule: /sets "path"/ },
    'an extended header that lies about its length': {
      parts: [file('x', '99 path=x\n', { type: 'x' })],
      rule: /extended header of the archive cannot be read/,
    },
    'a link to nowhere at all': { parts: [symlink('x', '')], rule: /the target of a link has 1 to 4095 bytes/ },
    'an extended header of 100 MB': {
      parts: [file('x', '', { type: 'x', sizeField: Buffer.from('00600000000\0') })],
      rule: /an extended header of 100663296 bytes; at most 1 MiB/,
    },
    'an extended header of many records': {
      parts: [file('x', '', { pax: Object.fromEntries(Array.from({ length: 10_001 }, (_, number) => [`k${number}`, 'v'])) })],
      rule: /extended header of the archive has more than 10000 records/,
    },
    'a name of GNU over 4,095 bytes': { parts: [{ name: 'x', type: 'L', content: 'n/'.repeat(3000) }, file('x')], rule: /its path has 6000 bytes/ },
    'a path that this machine has no room for': { parts: [file('x', '', { pax: { path: 'n/'.repeat(1900) } })], rule: /its path has 3001 bytes; at most 3000/ },
    'more names for a file than file systems have': {
      parts: [file('x'), ...Array.from({ length: 70_000 }, (_, number) => hardLink(`x${number}`, 'x'))],
      rule: /the file system of this server cannot hold the image: .*make a hard link/,
    },
    'sparse files of other makers': { parts: [file('x', '', { type: 'X' })], rule: /entries of type "X" cannot be in an image/ },
    'too many attributes': { parts: [file('x', '', { pax: { 'SCHILY.xattr.user.big': 'x'.repeat(65_536) } })], rule: /more than 64 KiB of attributes/ },
  }

  for (const [what, { parts, rule }] of Object.entries(refused)) {
    it(`refuses ${what}, and leaves nothing`, async () => {
      await expect(importParts(parts)).rejects.toMatchObject({ code: 'image_invalid', message: expect.stringMatching(rule) })
      expect(await ground.left()).toEqual({ names: [], work: [] })
      expect(await readFile(join(ground.dir, '..', 'outside'), 'utf8')).toBe('untouched')
    })
  }

  it('refuses what is no archive, a damaged one, an empty one and one without a shell', async () => {
    await expect(importBytes(Buffer.from('hello'.repeat(1000)))).rejects.toMatchObject({
      code: 'image_invalid',
      message: expect.stringMatching(/no tar archive/),
    })
    await expect(importBytes(makeTar([]))).rejects.toMatchObject({ message: expect.stringMatching(/archive is empty/) })
    const damaged = makeTar(shell)
    damaged[600] = 0x7f
    await expect(importBytes(damaged)).rejects.toMatchObject({
      code: 'image_invalid',
      message: expect.stringMatching(/after 1 entries the archive is damaged/),
    })
    await expect(importBytes(makeTar([folder('etc'), file('etc/x')]))).rejects.toMatchObject({
      code: 'image_invalid',
      message: expect.stringMatching(/no shell: \/bin\/sh/),
    })
    await expect(importBytes(makeTar([folder('bin'), symlink('bin/sh', '/../../../../bin/bash')]))).rejects.toMatchObject({
      message: expect.stringMatching(/no shell/),
    })
    await expect(importBytes(gzipSync(makeTar(shell)).subarray(0, 100))).rejects.toMatchObject({
      code: 'image_invalid',
      message: expect.stringMatching(/no whole gzip/),
    })
    expect(await ground.left()).toEqual({ names: [], work: [] })
  })

  it('stops what becomes too large when it is unpacked, however small it comes', async () => {
    await using small = await imageGround({ maxGb: 1 / 1024 })
    const bomb = gzipSync(makeTar([...shell, file('zeros', Buffer.alloc(8 << 20))]))
    const behindTheEnd = gzipSync(Buffer.concat([makeTar(shell), Buffer.alloc(8 << 20)]))
    for (const bytes of [bomb, behindTheEnd, zstdCompressSync(makeTar([...shell, file('zeros', Buffer.alloc(8 << 20))]))]) {
      expect(bytes.length).toBeLessThan(1 << 20)
      const made = small.images.create('bomb', { kind: 'archive', reference: 'bomb.tar.gz', content: streamOf(bytes) }, () => undefined)
      await expect(made).rejects.toMatchObject({ code: 'too_large' })
    }
    expect(await small.left()).toEqual({ names: [], work: [] })
  })

  it('keeps what is of the image and neutralises what is of machines', async () => {
    const made = await importParts([
      folder('/', { mode: 0o700, uid: 5 }),
      folder('etc'),
      file('etc/os-release', 'NAME=x\nPRETTY_NAME="Some \\"Linux\\" 1"\n'),
      symlink('etc/resolv.conf', '/run/outside'),
      file('su', 'x', { mode: 0o4755, uid: 65_535, gid: 7 }),
      file('ping', 'x', {
        pax: {
          'SCHILY.xattr.security.capability': capability,
          'SCHILY.xattr.security.selinux': 'x',
          'SCHILY.xattr.trusted.overlay.opaque': 'y',
          'SCHILY.xattr.user.note': 'kept',
        },
      }),
      hardLink('su2', 'su'),
      symlink('out', '../../../outside'),
      hardLink('out2', 'out'),
      symlink('away', '/../../../../outside'),
      file('away2/x', 'deep', { pax: { path: 'away2/x' } }),
      symlink('lib', 'usr/lib'),
      folder('usr'),
      folder('usr/lib'),
      file('lib/in-a-linked-folder', 'found'),
      symlink('loopback', '/etc'),
      file('loopback/through-absolute-link', 'inside'),
      { name: 'sda', type: '4', device: [8, 0] },
      { name: 'null', type: '3', device: [1, 3] },
      file('old', '', { mtime: 0, pax: { mtime: '-99999999999999' } }),
      file('future', '', { pax: { mtime: '99999999999999.5' } }),
      folder('proc'),
      file('proc/version', 'of another machine'),
      symlink('tmp', 'var/tmp'),
      folder('sbin'),
      symlink('sbin/init', '/bin/sh'),
      { name: 'pipe', type: '6' },
      file('name', '', { pax: { path: Buffer.from('latin\xe9 new\nline', 'latin1'), mtime: '1800000000.123456789' } }),
      folder('odd', { mode: 0o4351, mtime: 1_000_000_000 }),
    ])
    const root = rootOf(made)
    expect(made).toMatchObject({
      name: 'made',
      current: true,
      os: 'Some "Linux" 1',
      init: '/sbin/init',
      source: { kind: 'rootfs-tar', reference: 'image.tar' },
    })
    expect(made.source.digest).toMatch(/^sha256:[0-9a-f]{64}$/)
    expect((await stat(root)).mode & 0o7777).toBe(0o755)
    const [su, su2] = await Promise.all([stat(join(root, 'su')), stat(join(root, 'su2'))])
    expect([su.mode & 0o7777, su.uid, su.gid, su.ino]).toEqual([0o4755, 65_535, 7, su2.ino])
    expect([await readlink(join(root, 'out2')), (await lstat(join(root, 'out2'))).nlink]).toEqual(['../../../outside', 2])
    expect(await readlink(join(root, 'away'))).toBe('/../../../../outside')
    expect(await readFile(join(root, 'usr/lib/in-a-linked-folder'), 'utf8')).toBe('found')
    expect(await readFile(join(root, 'etc/through-absolute-link'), 'utf8')).toBe('inside')
    await expect(lstat(join(root, 'sda'))).rejects.toMatchObject({ code: 'ENOENT' })
    expect(ground.words).toContainEqual(expect.stringContaining('2 device nodes are left out'))
    expect(ground.words).toContainEqual(expect.stringContaining('2 extended attributes are left out'))
    expect((await stat(join(root, 'old'))).mtimeMs).toBe(0)
    expect((await stat(join(root, 'future'))).mtimeMs).toBe(0xffff_ffff * 1000)
    expect((await lstat(join(root, 'etc/resolv.conf'))).isFile()).toBe(true)
    expect((await lstat(join(root, 'tmp'))).mode & 0o7777).toBe(0o1777)
    await expect(lstat(join(root, 'proc/version'))).rejects.toMatchObject({ code: 'ENOENT' })
    expect((await lstat(join(root, 'pipe'))).isFIFO()).toBe(true)
    const odd = await stat(join(root, 'odd'))
    expect([odd.mode & 0o7777, odd.mtimeMs]).toEqual([0o4351, 1_000_000_000_000])
    expect((await readdir(root, { encoding: 'latin1' })).filter((name) => name.startsWith('latin'))).toEqual(['latin\xe9 new\nline'])
    // The disk for virtual machines has the same times.
    const disk = join(ground.dir, '..', 'disk')
    await run('fsck.erofs', [`--extract=${disk}`, '--preserve', join(root, '../root.erofs')])
    for (const from of [root, disk])
      expect((await stat(Buffer.from(`${from}/latin\xe9 new\nline`, 'latin1'), { bigint: true })).mtimeNs).toBe(1_800_000_000_123_456_789n)
    const attributes = await run('python3', [
      '-c',
      'import os,sys; print([(n, os.getxattr(sys.argv[1], n).hex()) for n in sorted(os.listxattr(sys.argv[1]))])',
      join(root, 'ping'),
    ])
    expect(attributes.stdout).toBe(`[('security.capability', '${capability.toString('hex')}'), ('user.note', '${Buffer.from('kept').toString('hex')}')]\n`)
    expect((await stat(join(root, '..'))).mode & 0o7777).toBe(0o700)
    expect(await readFile(join(ground.dir, '..', 'outside'), 'utf8')).toBe('untouched')
    expect((await ground.left()).work).toEqual([])
  })

  it('reads archives compressed by gzip, xz, zstd and bzip2, and gives the same files the same digest', async () => {
    const tar = makeTar([...shell, file('x', 'the same')])
    const packed = [tar, gzipSync(tar), zstdCompressSync(tar), await packedBy('xz', tar), await packedBy('bzip2', tar)]
    const digests = []
    for (const bytes of packed) digests.push((await importBytes(bytes)).digest)
    expect(new Set(digests).size).toBe(1)
    expect(await ground.images.list()).toHaveLength(1)
  })

  it('keeps versions, of which the newest is current, and tells the pool and the drivers', async () => {
    const one = await importParts([file('x', '1')])
    const two = await importParts([file('x', '2')])
    expect((await ground.images.list()).map(({ digest, current }) => [digest, current])).toEqual([
      [two.digest, true],
      [one.digest, false],
    ])
    expect(ground.catalogue.get('made').digest).toBe(two.digest)
    expect(ground.catalogue.get('made', one.digest).rootfsDir).toBe(rootOf(one))
    expect(() => ground.catalogue.get('made', `sha256:${'0'.repeat(64)}`)).toThrow(
      expect.objectContaining({ code: 'not_available', message: expect.stringMatching(/made.*is not on this server/) }),
    )
    expect(() => ground.catalogue.get('../made')).toThrow(expect.objectContaining({ code: 'bad_request' }))
    await ground.images.idle()
    expect(ground.events).toEqual([
      `prepare made@${one.digest.slice(0, 15)}`,
      `retire made@${one.digest.slice(0, 15)}`,
      `prepare made@${two.digest.slice(0, 15)}`,
    ])
  })

  it('are not removed under another daemon’s sandbox', async () => {
    const made = await importParts([])
    const record = join(ground.dir, '..', 'bbbbbb', 'c', '0123456789ab')
    await mkdir(record, { recursive: true })
    await writeFile(join(record, 'record.json'), JSON.stringify({ shape: { image: 'made', imageDigest: made.digest } }))
    await expect(ground.images.remove('made')).rejects.toMatchObject({
      code: 'image_in_use',
      message: expect.stringContaining('sandbox 0123456789ab of the server bbbbbb'),
    })
    await writeFile(join(record, 'record.json'), JSON.stringify({ shape: { image: 'made', imageDigest: 'sha256:another' } }))
    await ground.images.remove('made')
  })

  it('notes what the maker of an archive says of it, and finds that again', async () => {
    const said = {
      source: { kind: 'dockerfile', reference: 'Dockerfile', command: ['sh', '-c', 'x'] },
      environment: { A: 'b=c' },
      workingDirectory: '/srv',
    } as const
    const made = await ground.images.create('made', { kind: 'archive', reference: 'Dockerfile', content: streamOf(makeTar(shell)), ...said }, () => undefined)
    expect(made).toMatchObject(said)
    expect(await (await ground.again()).find('made')).toEqual(made)
  })

  it('finds what another daemon has made', async () => {
    const made = await importParts([])
    const other = await ground.again()
    expect(await other.find('made', made.digest)).toEqual(made)
    await other.remove('made')
    expect(await ground.images.find('made')).toBeUndefined()
    await other.close()
  })

  it('refuses to remove what is used or the default, and removes the rest at once', async () => {
    const first = await importParts([], 'first')
    const one = await importParts([file('x', '1')])
    const two = await importParts([file('x', '2')])
    await expect(ground.images.remove('first')).rejects.toMatchObject({ code: 'image_in_use', message: expect.stringMatching(/default/) })
    await expect(ground.images.remove('first', first.digest)).rejects.toMatchObject({ code: 'image_in_use' })
    const letGo = ground.uses.hold(one)
    await expect(ground.images.remove('made', one.digest)).rejects.toMatchObject({
      code: 'image_in_use',
      message: expect.stringContaining('a sandbox of this machine still has'),
    })
    await expect(ground.images.remove('made')).rejects.toMatchObject({ code: 'image_in_use' })
    expect(await ground.images.list()).toHaveLength(3)
    await ground.images.remove('made', two.digest)
    expect(await ground.images.find('made')).toMatchObject({ digest: one.digest, current: true })
    letGo()
    await ground.images.remove('made')
    await expect(ground.images.remove('made')).rejects.toMatchObject({ code: 'not_found' })
    await ground.images.close()
    expect(ground.events).toContain(`forget ${two.digest.slice(0, 15)}`)
    expect(await ground.left()).toEqual({ names: ['first'], work: [] })
  })

  it('has the default chosen, kept over a restart, unless the operator has fixed it', async () => {
    const first = await importParts([], 'first')
    const made = await importParts([file('x')])
    expect(ground.images.defaultImage).toBe('first')
    await expect(ground.images.setDefault('nothing')).rejects.toMatchObject({ code: 'bad_request' })
    ground.events.length = 0
    await ground.images.setDefault('made')
    expect(ground.events).toEqual([`default made@${made.digest.slice(0, 15)}`, `retire first@${first.digest.slice(0, 15)}`])
    expect((await ground.again()).defaultImage).toBe('made')
    await ground.images.remove('first')
    await using fixed = await imageGround({ fixed: true })
    await fixed.images.create('made', { kind: 'archive', reference: 'x', content: streamOf(makeTar(shell)) }, () => undefined)
    await expect(fixed.images.setDefault('made')).rejects.toMatchObject({ code: 'not_available', message: expect.stringContaining('MAGS_DEFAULT_IMAGE') })
  })

  it('leaves nothing of an import that is aborted, nor of one whose daemon was killed', async () => {
    const abort = new AbortController()
    const endless = async function* () {
      yield makeTar(shell).subarray(0, 1024)
      for (;;) {
        yield makeTar([file('more', Buffer.alloc(100_000))]).subarray(0, -1024)
        abort.abort(new Error('enough'))
      }
    }
    await expect(ground.images.create('made', { kind: 'archive', reference: 'x', content: endless() }, () => undefined, abort.signal)).rejects.toThrow('enough')
    expect(await ground.left()).toEqual({ names: [], work: [] })
    const stalled = async function* () {
      yield makeTar(shell).subarray(0, 1024)
      await new Promise(() => undefined)
    }
    const waiting = ground.images.create('made', { kind: 'archive', reference: 'x', content: stalled() }, () => undefined)
    const refused = expect(waiting).rejects.toMatchObject({ code: 'not_available', message: expect.stringContaining('stopping') })
    await ground.images.close()
    await refused
    expect(await ground.left()).toEqual({ names: [], work: [] })
    await mkdir(join(ground.dir, '.work', 'aaaaaa.left', 'image'), { recursive: true })
    await mkdir(join(ground.dir, '.work', 'bbbbbb.another-daemon'))
    await ground.again()
    expect((await ground.left()).work).toEqual(['bbbbbb.another-daemon'])
  })

  it('refuses names that are none, and references to files of the server', async () => {
    for (const name of ['', '.', '..', '../x', 'a/b', 'A', '-x', '.work', 'x'.repeat(64)])
      await expect(importParts([], name)).rejects.toMatchObject({ code: 'bad_request' })
    for (const reference of [
      'oci:/etc',
      'docker-archive:/etc/passwd',
      'dir:/',
      'docker-daemon:x',
      'containers-storage:x',
      '/etc/passwd',
      '--help',
      'docker://--help',
      'docker://a b',
    ])
      await expect(ground.images.create('x', { kind: 'registry', reference }, () => undefined)).rejects.toMatchObject({ code: 'bad_request' })
    for (const reference of ['localhost:5000/x', 'docker://127.0.0.1:1/x', '10.0.0.1/x', '169.254.169.254/x', '[::1]:5000/x'])
      await expect(ground.images.create('x', { kind: 'registry', reference }, () => undefined)).rejects.toMatchObject({
        code: 'forbidden',
        message: expect.stringContaining('MAGS_IMAGE_REGISTRIES'),
      })
    await expect(ground.images.create('x', { kind: 'recipe', recipe: 'debian-12' }, () => undefined)).rejects.toMatchObject({ code: 'not_available' })
  })

  it('reads the notes of images that setup made', async () => {
    const made = await importParts([folder('sbin'), symlink('sbin/init', '../usr/init'), folder('usr'), file('usr/init', '', { mode: 0o755 })])
    const note = { name: 'made', digest: made.digest, created_at: '2026-01-01T00:00:00Z', os: 'Debian', size_bytes: 5, recipe_digest: 'abc' }
    await writeFile(join(rootOf(made), '..', 'image.json'), JSON.stringify(note))
    expect(await (await ground.again()).find('made')).toEqual({
      name: 'made',
      digest: made.digest,
      current: true,
      os: 'Debian',
      sizeBytes: 5,
      createdAt: '2026-01-01T00:00:00.000Z',
      source: { kind: 'recipe', reference: 'made', digest: 'sha256:abc' },
      init: '/sbin/init',
    })
  })
})

async function packedBy(program: string, bytes: Buffer): Promise<Buffer> {
  const { stdout } = await run('sh', ['-c', `${program} --stdout | base64`], { input: bytes })
  return Buffer.from(stdout, 'base64')
}
