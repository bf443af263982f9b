import { execFileSync } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { packFolder } from './pack-folder.ts'
import { readTar } from './read-tar.ts'
import { unpackTar } from './unpack-tar.ts'

async function newFolder() {
  const path = await mkdtemp(join(tmpdir(), 'mags-pack-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) }
}

async function newTree() {
  const folder = await newFolder()
  const { path } = folder
  await mkdir(join(path, 'a', 'x'.repeat(120)), { recursive: true })
  await writeFile(join(path, 'a', 'x'.repeat(120), 'ünï'), 'deep')
  await writeFile(join(path, 'run'), Buffer.alloc(300_001, 7))
  await chmod(join(path, 'run'), 0o750)
  await symlink(`/${'t'.repeat(150)}`, join(path, 'link'))
  await writeFile(Buffer.concat([Buffer.from(`${path}/`), Buffer.from([0xfe])]), '')
  execFileSync('mkfifo', [join(path, 'pipe')])
  return folder
}

async function expectTree(path: string) {
  expect((await readdir(path)).sort()).toEqual(['a', 'link', 'run', '\ufffd'])
  expect(await readFile(join(path, 'a', 'x'.repeat(120), 'ünï'), 'utf8')).toBe('deep')
  expect(await readFile(join(path, 'run'))).toEqual(Buffer.alloc(300_001, 7))
  expect((await stat(join(path, 'run'))).mode & 0o7777).toBe(0o750)
  expect(await readlink(join(path, 'link'))).toBe(`/${'t'.repeat(150)}`)
}

describe('packFolder', () => {
  it('is read back as it was, by us and by GNU tar', async () => {
    await using tree = await newTree()
    const skipped: string[] = []
    const bytes = Buffer.concat(await Array.fromAsync(packFolder(tree.path, { onSkip: (path) => skipped.push(path) })))
    expect(skipped).toEqual(['pipe'])
    expect(bytes.length % 512).toBe(0)
    await using ours = await newFolder()
    await unpackTar(packFolder(tree.path), ours.path)
    await expectTree(ours.path)
    await using theirs = await newFolder()
    execFileSync('tar', ['-C', theirs.path, '-xpf', '-'], { input: bytes })
    await expectTree(theirs.path)
  })

  it('takes nothing from outside of the folder: links are sent as links', async () => {
    await using tree = await newFolder()
    await symlink('/etc/passwd', join(tree.path, 'passwd'))
    await symlink('/etc', join(tree.path, 'etc'))
    const entries = []
    for await (const { type, path, target } of readTar(packFolder(tree.path))) entries.push([type, path, target])
    expect(entries).toEqual([
      ['symlink', 'etc', '/etc'],
      ['symlink', 'passwd', '/etc/passwd'],
    ])
  })

  it('fails when a file becomes shorter while it is read', async () => {
    await using tree = await newFolder()
    const file = join(tree.path, 'log')
    await writeFile(file, Buffer.alloc(600_000))
    const parts = packFolder(tree.path)
    await parts.next()
    await truncate(file, 10)
    await expect(Array.fromAsync(parts)).rejects.toThrow(/log changed while it was read/)
  })

  it('says the size of what does not fit into a header in an extended one', async () => {
    await using tree = await newFolder()
    // Sparse: only its first parts are looked at.
    await writeFile(join(tree.path, 'huge'), '')
    await truncate(join(tree.path, 'huge'), 9 * 2 ** 30)
    const entries = readTar(packFolder(tree.path))
    const { value } = await entries.next()
    expect(value).toMatchObject({ type: 'file', path: 'huge', sizeBytes: 9 * 2 ** 30 })
    await entries.return(undefined)
  })
})
