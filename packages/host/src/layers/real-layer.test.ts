import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, statfsSync } from 'node:fs'
import { appendFile, link, lstat, mkdir, mkdtemp, open, readdir, readFile, rename, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { MounterClient } from '../mounter/mounter-client.ts'
import { restoreTree } from '../workspaces/restore/restore-tree.ts'
import { saveTree } from '../workspaces/save/save-tree.ts'
import { MemoryPackStore } from '../workspaces/testing/memory-pack-store.ts'
import { testImage } from '../workspaces/testing/save-and-restore.ts'
import type { LayerChange, LayerEntry, LayerSession, LayerWrite } from './layer-session.ts'
import { openHostLayer } from './open-host-layer.ts'
import { collect, gather } from './testing/collect.ts'

/** Another folder for builds with sanitizers. */
const build = process.env.MAGS_NATIVE_BUILD ?? join(import.meta.dirname, '../../../../native/build')
const binary = join(build, 'mounter')
const missing = [...(existsSync(binary) ? [] : ['native/build/mounter (build native/ first)']), ...(process.getuid?.() === 0 ? [] : ['root'])]
const required = process.env.MAGS_REQUIRE_NATIVE === '1'
if (missing.length > 0 && !required) console.warn(`skipped: tests against the real layer worker need ${missing.join(' and ')}`)

/** tmpfs does not know when a mapped page is written; the disks of layers are ext4. */
const onTmpfs = statfsSync(tmpdir()).type === 0x0102_1994
if (onTmpfs) console.warn(`skipped: what a store through a mapping does to a file's times, for ${tmpdir()} is a tmpfs; set TMPDIR to a folder on a disk`)

const run = promisify(execFile)
const clock = () => BigInt(Date.now()) * 1_000_000n
type NewEntry = Extract<LayerWrite, { kind: 'entry' }>['entry']

async function* iterate(tree: readonly LayerWrite[]): AsyncGenerator<LayerWrite> {
  yield* tree
}

function bytesOf(path: string): Buffer {
  return Buffer.from(path, 'latin1')
}

function made(path: string, kind: NewEntry['kind'], rest: Partial<NewEntry> = {}): LayerWrite {
  const plain = {
    mode: kind === 'directory' ? 0o755 : kind === 'symlink' ? 0o777 : 0o644,
    uid: 0,
    gid: 0,
    sizeBytes: 0,
    mtimeNs: 1_700_000_000_000_000_000n,
    attributes: [],
  }
  return { kind: 'entry', entry: { ...plain, path: bytesOf(path), kind, ...rest } }
}

function data(offset: number, bytes: Buffer | string): LayerWrite {
  return { kind: 'data', offset, bytes: Buffer.from(bytes) }
}

function shown(change: LayerChange): string {
  return 'removed' in change ? `- ${change.removed}` : `+ ${change.present.path}`
}

/** POSIX_ACL_XATTR_VERSION 2: owner rwx, user 1000 r-x, group r-x, mask r-x, other none. */
const acl = Buffer.from('0200000001000700ffffffff02000500e803000004000500ffffffff10000500ffffffff20000000ffffffff', 'hex')
/** VFS_CAP_REVISION_2 with CAP_NET_RAW permitted. */
const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex')

const everything: readonly LayerWrite[] = [
  made('', 'directory', { mode: 0o1777, mtimeNs: 5n, uid: 3, gid: 4 }),
  made('!first', 'file', { mode: 0o4711, uid: 1000, gid: 1001, sizeBytes: 5, mtimeNs: -1_000_000_001n }),
  data(0, 'hello'),
  made('a', 'directory', {
    mode: 0o2750,
    uid: 7,
    gid: 8,
    attributes: [{ name: 'trusted.overlay.opaque', value: Buffer.from('y') }],
    mtimeNs: 1_600_000_000_000_000_001n,
  }),
  made('a/acl', 'directory', {
    mode: 0o750,
    attributes: [
      { name: 'system.posix_acl_access', value: acl },
      { name: 'system.posix_acl_default', value: acl },
    ],
  }),
  made('a/acl/inside', 'file', { mode: 0o600 }),
  made('a/capable', 'file', { mode: 0o755, uid: 5, sizeBytes: 1, attributes: [{ name: 'security.capability', value: capability }] }),
  data(0, 'x'),
  made('a/gone', 'whiteout', { mode: 0 }),
  made('a/link', 'symlink', { target: bytesOf('../\xff/nowhere'), uid: 9, gid: 10 }),
  made('a/second', 'file', { linkTo: bytesOf('!first'), mode: 0o4711, uid: 1000, gid: 1001, sizeBytes: 5, mtimeNs: -1_000_000_001n }),
  made('a/\xff\xfe', 'file', {
    attributes: [
      { name: 'user.caf\xe9', value: Buffer.from([0, 255]) },
      { name: 'user.empty', value: Buffer.alloc(0) },
    ],
  }),
  made('a!', 'fifo', { mode: 0o6622, uid: 11 }),
  made('n'.repeat(255), 'directory'),
  made(`${'n'.repeat(255)}/x`, 'socket', { mode: 0o666 }),
  made('sparse', 'file', { sizeBytes: 10 << 20 }),
  data(1 << 20, 'middle'),
  made('z', 'file', { sizeBytes: 1 << 20 }),
  data(0, Buffer.alloc(1 << 20, 'z')),
]

/** setxattr(2), by its number on x86-64: not every machine has setfattr(1). */
async function setAttribute(path: string, name: string, value: string): Promise<void> {
  await run('perl', ['-e', 'my ($path, $name, $value) = @ARGV; exit(syscall(188, $path, $name, $value, length $value, 0) != 0)', path, name, value])
}

/** The worker of native/layer, behind a real mounter's socket. */
describe.skipIf(missing.length > 0 && !required)('the real layer worker', () => {
  let home: string
  let socket: string
  let mounter: MounterClient
  let dir: string
  let session: LayerSession

  beforeAll(async () => {
    if (missing.length > 0) throw new Error(`missing: ${missing.join(' and ')}`)
    home = await mkdtemp(join(tmpdir(), 'layers-'))
    socket = join(home, 'layers.sock')
    mounter = await MounterClient.start({ binary, logFile: join(home, 'mounter.log'), layerSocket: socket })
    // Requests are served once the socket is there.
    await mounter.run(['/bin/true'], { logFile: join(home, 'true.log'), timeoutMs: 10_000 })
  })

  afterAll(async () => {
    await mounter?.close()
    // Node's own cannot remove paths this deep.
    if (home) await run('rm', ['-rf', home])
  })

  beforeEach(async () => {
    dir = await mkdtemp(join(home, 'layer-'))
    await mkdir(join(dir, 'u'))
    session = await openHostLayer(socket, dir)
  })

  afterEach(() => session.close())

  function at(path: string): string {
    return join(dir, 'u', path)
  }

  async function walkedPaths(): Promise<string[]> {
    return (await collect(session.walk())).map(({ path }) => path.toString('latin1'))
  }

  it('listens for root only', async () => {
    expect((await stat(socket)).mode & 0o7777).toBe(0o600)
  })

  it('fills a layer with every kind of thing, and reads the same again', async () => {
    await session.write(iterate(everything))
    const entries = await collect(session.walk())
    const expected = everything.flatMap((item) => (item.kind === 'entry' ? [item.entry] : []))
    const same = ({ path, kind, mode, uid, gid, target, attributes }: LayerEntry | NewEntry) => ({
      path: path.toString('latin1'),
      kind,
      mode,
      uid,
      gid,
      target: target?.toString('latin1'),
      attributes: attributes.map(({ name, value }) => `${name}=${value.toString('hex')}`),
    })
    expect(entries.map(same)).toEqual(expected.map(same))
    expect(entries.map(({ stamp }) => stamp.mtimeNs)).toEqual(expected.map(({ mtimeNs }) => mtimeNs))
    const sizes = (kind: string, size: number) => (kind === 'file' ? size : 0)
    expect(entries.map(({ kind, stamp }) => sizes(kind, stamp.sizeBytes))).toEqual(expected.map(({ kind, sizeBytes }) => sizes(kind, sizeBytes)))
    const linked = entries.filter(({ kind, links }) => kind === 'file' && links === 2)
    expect(linked.map(({ path }) => `${path}`)).toEqual(['!first', 'a/second'])
    expect(linked[0]?.stamp.inode).toBe(linked[1]?.stamp.inode)
    for (const entry of entries.filter(({ path }) => path.length > 0 && !path.includes(0xff))) {
      const real = await lstat(at(entry.path.toString()), { bigint: true })
      expect(entry.stamp).toEqual({ inode: real.ino, sizeBytes: Number(real.size), mtimeNs: real.mtimeNs, ctimeNs: real.ctimeNs })
    }

    const files = entries.filter(({ kind }) => kind === 'file')
    const contents = await gather(session.read(files.map(({ path }) => path)))
    const ends = contents.filter((content) => content.kind === 'end')
    expect(ends.map(({ stamp }) => stamp)).toEqual(files.map(({ stamp }) => stamp))
    const bytes = (path: string) => {
      const index = files.findIndex((file) => file.path.equals(bytesOf(path)))
      return contents.flatMap((content) => (content.index === index && content.kind !== 'end' ? [content] : []))
    }
    expect(bytes('!first')).toEqual([{ index: 0, kind: 'data', bytes: Buffer.from('hello') }])
    expect(bytes('a/\xff\xfe')).toEqual([])
    const sparse = bytes('sparse')
    expect(sparse.map(({ kind }) => kind)).toEqual(['hole', 'data', 'hole'])
    expect(sparse[0]).toMatchObject({ lengthBytes: 1 << 20 })
    expect(Buffer.concat(bytes('z').map((content) => (content.kind === 'data' ? content.bytes : Buffer.alloc(0)))).equals(Buffer.alloc(1 << 20, 'z'))).toBe(
      true,
    )
    expect((await lstat(at('sparse'))).blocks * 512).toBeLessThan(1 << 20)
  })

  it('gives a saved tree back as it was', async () => {
    await session.write(iterate(everything))
    await writeFile(at('large'), randomBytes(3_000_000))
    const packs = new MemoryPackStore()
    const { manifest } = await saveTree({ session, packs, image: testImage, clock })
    const other = await mkdtemp(join(home, 'layer-'))
    await mkdir(join(other, 'u'))
    const filled = await openHostLayer(socket, other)
    try {
      await restoreTree({ session: filled, manifest, packs, clock })
      const seen = async (from: LayerSession) => {
        const entries = await collect(from.walk())
        const files = entries.filter(({ kind }) => kind === 'file').map(({ path }) => path)
        const contents = await gather(from.read(files))
        const bytes = files.map((_, index) => {
          const hash = createHash('sha256')
          for (const part of contents) {
            if (part.index !== index) continue
            if (part.kind === 'data') hash.update(part.bytes)
            if (part.kind === 'hole') hash.update(Buffer.alloc(part.lengthBytes))
          }
          return hash.digest('hex')
        })
        return {
          entries: entries.map(({ stamp, ...entry }) => ({
            ...entry,
            mtimeNs: entry.kind === 'whiteout' ? 0n : stamp.mtimeNs,
            sizeBytes: entry.kind === 'file' ? stamp.sizeBytes : 0,
          })),
          bytes,
        }
      }
      expect(await seen(filled)).toEqual(await seen(session))
    } finally {
      filled.close()
    }
  })

  it('tells only what changed', async () => {
    await mkdir(at('a/b/c'), { recursive: true })
    await mkdir(at('keep'))
    for (const path of ['a/1', 'a/b/2', 'a/b/c/3', 'b', 'keep/4', 'z']) await writeFile(at(path), path)
    await collect(session.walk())
    // What was made a moment ago may be told once more; then it has settled.
    await settled()
    expect(await collect(session.changes())).toEqual([])

    await appendFile(at('keep/4'), 'more')
    await rm(at('a/b'), { recursive: true })
    await writeFile(at('a/b'), 'a file now')
    await rename(at('z'), at('y'))
    await mkdir(at('new/deep'), { recursive: true })
    await symlink('4', at('keep/5'))
    const changes = await collect(session.changes())
    expect(changes.map(shown)).toEqual([
      '+ ',
      '+ a',
      '+ a/b',
      '- a/b/2',
      '- a/b/c',
      '- a/b/c/3',
      '+ keep',
      '+ keep/4',
      '+ keep/5',
      '+ new',
      '+ new/deep',
      '+ y',
      '- z',
    ])

    await settled()
    await rm(at('a'), { recursive: true })
    await link(at('b'), at('keep/6'))
    expect((await collect(session.changes())).map(shown)).toEqual(['+ ', '- a', '- a/1', '- a/b', '+ b', '+ keep', '+ keep/6'])
    expect(await walkedPaths()).toEqual(['', 'b', 'keep', 'keep/4', 'keep/5', 'keep/6', 'new', 'new/deep', 'y'])
  })

  /** Until nothing is recent any more to the worker. */
  async function settled() {
    while ((await collect(session.changes())).length > 0) await new Promise((resolve) => setImmediate(resolve))
  }

  it('tells again of what changed so lately that another change might not show', async () => {
    await writeFile(at('old'), '')
    await collect(session.walk())
    await settled()
    await writeFile(at('new'), '1')
    expect((await collect(session.changes())).map(shown)).toEqual(['+ ', '+ new'])
    await writeFile(at('new'), '2')
    expect((await collect(session.changes())).map(shown)).toContain('+ new')
  })

  it('says which files are gone or none, and never follows a link', async () => {
    await writeFile(at('file'), 'text')
    await mkdir(at('folder'))
    await symlink('file', at('link'))
    await symlink(join(dir, 'u', 'folder'), at('way'))
    await writeFile(at('folder/inside'), 'text')
    await run('mkfifo', [at('fifo')])
    const paths = ['nothing', 'folder', 'link', 'fifo', 'way/inside', 'file/x', 'folder/inside'].map(bytesOf)
    const contents = await gather(session.read(paths))
    expect(contents.map(({ index, kind }) => `${index} ${kind}`)).toEqual([
      '0 missing',
      '1 missing',
      '2 missing',
      '3 missing',
      '4 missing',
      '5 missing',
      '6 data',
      '6 end',
    ])
    expect(await gather(session.read([]))).toEqual([])
  })

  it.skipIf(onTmpfs)('changes the stamp of a file that is written through a mapping after it was read', async () => {
    const file = at('mapped')
    await writeFile(file, Buffer.alloc(4096, 'a'))
    // mmap(2) of one page, shared, and read(2) of one byte from a pipe straight into it, by their numbers on x86-64.
    const program = `$| = 1; open my $f, "+<", $ARGV[0] or die; my $page = syscall(9, 0, 4096, 3, 1, fileno $f, 0); die if $page == -1;
      while (syscall(0, 0, $page, 1) == 1) { print "ok\\n" }`
    const child = execFile('perl', ['-e', program, file])
    const { stdin, stdout } = child
    if (!stdin || !stdout) throw new Error('no pipes')
    const answers = createInterface(stdout)[Symbol.asyncIterator]()
    const put = async (letter: string) => {
      stdin.write(letter)
      expect((await answers.next()).value).toBe('ok')
    }
    const look = async () => {
      const contents = await gather(session.read([bytesOf('mapped')]))
      const [first, last] = [contents[0], contents.at(-1)]
      if (first?.kind !== 'data' || last?.kind !== 'end') throw new Error('no contents')
      return { letter: first.bytes.toString('latin1', 0, 1), stamp: last.stamp }
    }
    try {
      // The first store makes the page dirty; from then on stores leave no trace until somebody cleans it.
      await put('b')
      await put('c')
      const before = await look()
      await put('d')
      const after = await look()
      expect([before.letter, after.letter]).toEqual(['c', 'd'])
      expect(after.stamp).not.toEqual(before.stamp)
    } finally {
      stdin.end()
    }
  })

  it('says what cannot be put where', async () => {
    const cases: readonly [string, readonly LayerWrite[], object][] = [
      ['a folder nobody opened', [made('', 'directory'), made('a/b', 'file')], { errno_name: 'EINVAL', path: 'a/b' }],
      [
        'a folder left before',
        [made('', 'directory'), made('a', 'directory'), made('b', 'directory'), made('a/c', 'file')],
        { errno_name: 'EINVAL', path: 'a/c' },
      ],
      ['a file twice', [made('', 'directory'), made('a', 'file'), made('a', 'file')], { errno_name: 'EEXIST', path: 'a' }],
      ['data behind the end', [made('', 'directory'), made('a', 'file', { sizeBytes: 2 }), data(0, 'abc')], { errno_name: 'EINVAL', path: 'a' }],
      ['data without a file', [made('', 'directory'), data(0, 'abc')], { errno_name: 'EINVAL', path: '' }],
      ['a link to nothing', [made('', 'directory'), made('a', 'file', { linkTo: bytesOf('b') })], { errno_name: 'ENOENT', path: 'a' }],
      [
        'a way through a link',
        [made('', 'directory'), made('a', 'symlink', { target: bytesOf('/') }), made('a/b', 'file')],
        { errno_name: 'EINVAL', path: 'a/b' },
      ],
      ['no root', [made('a', 'file')], { errno_name: 'EINVAL', path: 'a' }],
    ]
    for (const [what, tree, details] of cases) {
      const other = await mkdtemp(join(home, 'layer-'))
      await mkdir(join(other, 'u'))
      const failing = await openHostLayer(socket, other)
      await expect(failing.write(iterate(tree)), what).rejects.toMatchObject({ details })
    }
    await writeFile(at('there'), '')
    await expect(session.write(iterate([made('', 'directory')]))).rejects.toMatchObject({ details: { errno_name: 'ENOTEMPTY' } })
  })

  it('refuses entries whose content is somewhere else', async () => {
    await mkdir(at('a/moved'), { recursive: true })
    await setAttribute(at('a/moved'), 'trusted.overlay.redirect', '/x')
    await expect(collect(session.walk())).rejects.toMatchObject({ code: 'workspace_not_savable', details: { errno_name: 'ENOTSUP', path: 'a/moved' } })
  })

  it('keeps the kernel’s own notes to itself', async () => {
    await writeFile(at('file'), '')
    for (const name of ['trusted.overlay.origin', 'trusted.overlay.impure', 'trusted.other', 'user.mine']) await setAttribute(at('file'), name, 'y')
    const [, file] = await collect(session.walk())
    expect(file?.attributes.map(({ name }) => name)).toEqual(['user.mine'])
  })

  it('needs a folder with a u that is one', async () => {
    await expect(openHostLayer(socket, join(home, 'nothing'))).rejects.toMatchObject({ details: { errno_name: 'ENOENT' } })
    await expect(openHostLayer(socket, home)).rejects.toMatchObject({ details: { errno_name: 'ENOENT' } })
    const trap = await mkdtemp(join(home, 'trap-'))
    await symlink('/', join(trap, 'u'))
    await expect(openHostLayer(socket, trap)).rejects.toMatchObject({ details: { errno_name: 'ENOTDIR' } })
    await symlink(dir, join(home, 'way'))
    await expect(openHostLayer(socket, join(home, 'way'))).rejects.toMatchObject({ details: { errno_name: 'ENOTDIR' } })
    await expect(openHostLayer(socket, join(home, 'way', 'u'))).rejects.toMatchObject({ details: { errno_name: 'ELOOP' } })
    await rm(join(home, 'way'))
    await expect(openHostLayer(socket, 'relative')).rejects.toMatchObject({ details: { errno_name: 'EPROTO' } })
    await expect(openHostLayer(join(home, 'no.sock'), dir)).rejects.toMatchObject({ code: 'sandbox_failed', message: expect.stringContaining('no.sock') })
  })

  it('reaches what only the mounter has mounted, and does not hold on to it', async () => {
    const image = join(home, 'disk.img')
    await writeFile(image, '')
    await truncate(image, 16 << 20)
    await run('mkfs.ext4', ['-q', '-F', image])
    const disk = await mkdtemp(join(home, 'disk-'))
    for (let round = 0; round < 5; round++) {
      await mounter.mountImage(image, disk)
      await mounter.resetUpper(disk)
      const sessions = await Promise.all([openHostLayer(socket, disk), openHostLayer(socket, disk)])
      expect(await Promise.all(sessions.map(async (each) => (await collect(each.walk())).length))).toEqual([1, 1])
      for (const each of sessions) each.close()
      await mounter.unmount(disk)
    }
  })

  it('looks at one name at the top only, and does not even read the rest', async () => {
    for (const path of ['other/deep', 'workspace/deep', 'workspaces']) await mkdir(at(path), { recursive: true })
    await Promise.all(Array.from({ length: 500 }, (_, index) => writeFile(at(`other/${index}`), '')))
    await writeFile(at('workspace/deep/file'), 'text')
    // What cannot be told of ends a walk that comes there.
    await setAttribute(at('other/deep'), 'trusted.overlay.redirect', '/elsewhere')
    await expect(collect(session.walk())).rejects.toMatchObject({ code: 'workspace_not_savable' })
    const scoped = await openHostLayer(socket, dir, 'workspace')
    const walked = async () => (await collect(scoped.walk())).map(({ path }) => path.toString())
    const changed = async () => (await collect(scoped.changes())).map(shown).filter((change) => change !== '+ ')
    const expected = ['', 'workspace', 'workspace/deep', 'workspace/deep/file']
    expect(await walked()).toEqual(expected)
    while ((await changed()).length > 0);
    await rm(at('other'), { recursive: true })
    await writeFile(at('another'), 'x')
    expect(await changed()).toEqual([])
    await rename(at('workspace'), at('away'))
    expect(await changed()).toEqual(expected.slice(1).map((path) => `- ${path}`))
    await rename(at('away'), at('workspace'))
    expect(await changed()).toEqual(expected.slice(1).map((path) => `+ ${path}`))
    expect((await gather(scoped.read([bytesOf('workspace/deep/file')]))).map(({ kind }) => kind)).toEqual(['data', 'end'])
    scoped.close()
    const none = await openHostLayer(socket, dir, 'absent')
    expect(await collect(none.walk())).toHaveLength(1)
    expect((await collect(none.changes())).map(shown).filter((change) => change !== '+ ')).toEqual([])
    none.close()
    await expect(openHostLayer(socket, dir, 'a/b')).rejects.toMatchObject({ code: 'internal' })
  })

  it('takes all but one folder out of an upper, and removes it bit by bit', async () => {
    for (const path of ['other/deep', 'workspace']) await mkdir(at(path), { recursive: true })
    await Promise.all(Array.from({ length: 500 }, (_, index) => writeFile(at(`other/deep/${index}`), '')))
    await writeFile(at('workspace/kept'), 'text')
    const before = await lstat(at('workspace/kept'), { bigint: true })
    expect(await mounter.narrowUpper({ dir, folder: 'workspace', lowerDirs: [home] })).toBe(true)
    session.close()
    const other = await openHostLayer(socket, dir)
    expect((await collect(other.walk())).map(({ path }) => path.toString())).toEqual(['', 'workspace', 'workspace/kept'])
    other.close()
    const after = await lstat(at('workspace/kept'), { bigint: true })
    expect([after.ino, after.ctimeNs]).toEqual([before.ino, before.ctimeNs])
    expect(await mounter.sweepUpper(dir, 100)).toBe(true)
    while (await mounter.sweepUpper(dir, 100));
    expect(await readdir(join(dir, 'x'))).toEqual([])
    expect(await mounter.narrowUpper({ dir, folder: 'workspace', lowerDirs: [home] })).toBe(false)
  })

  it('unmounts what a worker that nobody wants any more is still busy with', async () => {
    const image = join(home, 'busy.img')
    await writeFile(image, '')
    await truncate(image, 128 << 20)
    await run('mkfs.ext4', ['-q', '-F', image])
    const disk = await mkdtemp(join(home, 'disk-'))
    await mounter.mountImage(image, disk)
    await mounter.resetUpper(disk)
    const busy = await openHostLayer(socket, disk)
    const pieces = Array.from({ length: 256 }, (_, index) => data(index << 18, Buffer.alloc(1 << 18, index)))
    await busy.write(iterate([made('', 'directory'), made('large', 'file', { sizeBytes: 64 << 20 }), ...pieces]))
    // Before it sends any of that it writes all of it out, and while it does it cannot be ended.
    const reading = gather(busy.read([bytesOf('large')])).catch(() => undefined)
    await mounter.run(['/bin/true'], { logFile: join(home, 'true.log'), timeoutMs: 10_000 })
    busy.close()
    await reading
    await mounter.unmount(disk)
  })

  it('serves many at once', async () => {
    await writeFile(at('file'), 'text')
    const sessions = await Promise.all(
      Array.from({ length: 40 }, () =>
        openHostLayer(socket, dir).then(async (other) => {
          const paths = (await collect(other.walk())).length
          other.close()
          return paths
        }),
      ),
    )
    expect(new Set(sessions)).toEqual(new Set([2]))
  })

  it('walks to the deepest path there can be, and no deeper', async () => {
    const names = Array.from({ length: 2047 }, () => 'd')
    await session.write(iterate([made('', 'directory'), ...names.map((_, index) => made(names.slice(0, index + 1).join('/'), 'directory'))]))
    expect((await collect(session.walk())).length).toBe(2048)
    expect(await collect(session.changes())).toBeInstanceOf(Array)
    await run('perl', ['-e', 'chdir $ARGV[0] or die; for (1 .. 2047) { chdir "d" or die } mkdir "ab" or die; mkdir "ab/c" or die', join(dir, 'u')])
    await expect(collect(session.walk())).rejects.toMatchObject({ code: 'workspace_not_savable', details: { errno_name: 'ENAMETOOLONG' } })
  })

  it('reads a file in as many parts as it has, up to a limit', async () => {
    const file = await open(at('holes'), 'w')
    const piece = 256 << 10
    for (let index = 0; index < 100; index++) await file.write(Buffer.alloc(4096, index), 0, 4096, index * piece)
    await file.truncate(100 * piece)
    await file.close()
    const contents = await gather(session.read([bytesOf('holes')]))
    expect(contents.filter(({ kind }) => kind === 'hole')).toHaveLength(100)
    const whole = Buffer.concat(
      contents.map((part) => (part.kind === 'data' ? part.bytes : part.kind === 'hole' ? Buffer.alloc(part.lengthBytes) : Buffer.alloc(0))),
    )
    expect(whole.equals(await readFile(at('holes')))).toBe(true)
  })
})
