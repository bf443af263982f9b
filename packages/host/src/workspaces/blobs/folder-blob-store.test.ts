import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { describeBlobStoreConformance } from './blob-store-conformance.ts'
import { FolderBlobStore } from './folder-blob-store.ts'
import { folderError } from './folder-error.ts'

/** A folder that is gone after the test. */
const temporaryFolder = () => mkdtempSync(join(tmpdir(), 'mags-blobs-'))

describeBlobStoreConformance('a folder', async () => {
  const folder = temporaryFolder()
  const stores = [await FolderBlobStore.open(folder), await FolderBlobStore.open(folder)] as const
  return {
    stores,
    dispose: async () => {
      for (const store of stores) store.close()
      rmSync(folder, { recursive: true })
    },
  }
})

/** Runs as another process; prints what it did. */
const program = `
import { FolderBlobStore } from ${JSON.stringify(join(import.meta.dirname, 'folder-blob-store.ts'))}
const [folder, what] = process.argv.slice(2)
const store = await FolderBlobStore.open(folder)
if (what === 'add') {
  for (let turn = 0; turn < 60; ) {
    const found = await store.get('count')
    const next = Buffer.from(String(Number(found.bytes) + 1))
    if (await store.put('count', next, { kind: 'unchanged', etag: found.etag })) turn++
  }
} else {
  console.log('writing')
  for (let turn = 0; ; turn++) await store.put('big', Buffer.alloc(4 << 20, String(turn % 10)))
}
`

describe('a folder of objects', () => {
  let folder: string
  let store: FolderBlobStore
  let script: string
  const start = (what: string) =>
    spawn(process.execPath, ['--conditions=source', '--disable-warning=ExperimentalWarning', script, folder, what], { stdio: ['ignore', 'pipe', 'inherit'] })

  beforeAll(async () => {
    folder = temporaryFolder()
    script = join(folder, 'program.mjs')
    writeFileSync(script, program)
    store = await FolderBlobStore.open(folder)
  })
  afterAll(() => {
    store.close()
    rmSync(folder, { recursive: true })
  })

  it('lets nobody else look', async () => {
    await store.put('deep/er/object', Buffer.from('secret'))
    expect(statSync(folder).mode & 0o777).toBe(0o700)
    expect(statSync(join(folder, 'objects/deep/er')).mode & 0o777).toBe(0o700)
    expect(statSync(join(folder, 'objects/deep/er/object')).mode & 0o777).toBe(0o600)
  })

  it('leaves no empty folders and no drafts', async () => {
    await store.put('x/y/z', Buffer.from('1'))
    await store.put('x/y/z', Buffer.from('2'), { kind: 'absent' })
    await store.delete(['x/y/z'])
    expect(readdirSync(join(folder, 'objects'))).not.toContain('x')
    expect(readdirSync(join(folder, 'drafts'))).toEqual([])
  })

  it('follows no link', async () => {
    writeFileSync(join(folder, 'outside'), 'not an object')
    symlinkSync(join(folder, 'outside'), join(folder, 'objects', 'linked'))
    await expect(store.get('linked')).rejects.toMatchObject({ code: 'object_store_refused' })
    expect(await Array.fromAsync(store.list('linked'))).toEqual([])
  })

  it('puts and deletes next to a folder that comes and goes', async () => {
    const work = async (name: string) => {
      for (let turn = 0; turn < 40; turn++) {
        await store.put(`busy/${name}`, Buffer.from(name))
        expect(String((await store.get(`busy/${name}`))?.bytes)).toBe(name)
        await store.delete([`busy/${name}`])
      }
    }
    await Promise.all(['a', 'b', 'c'].map(work))
  })

  it('counts right when several processes swap', async () => {
    await store.put('count', Buffer.from('0'))
    const codes = await Promise.all([start('add'), start('add'), start('add')].map(async (child) => (await once(child, 'exit'))[0] as number))
    expect(codes).toEqual([0, 0, 0])
    expect(String((await store.get('count'))?.bytes)).toBe('180')
  })

  it('survives a writer that is killed, and sweeps what it left', async () => {
    for (let turn = 0; turn < 4; turn++) {
      const child = start('write')
      await once(child.stdout, 'data')
      child.kill('SIGKILL')
      await once(child, 'exit')
      // The lock is free, and the object is one that was written, as a whole.
      expect(await store.put('after', Buffer.from(String(turn)))).toBeDefined()
      const found = await store.get('big')
      if (found) expect(found.bytes.equals(Buffer.alloc(4 << 20, found.bytes.subarray(0, 1)))).toBe(true)
    }
    writeFileSync(join(folder, 'drafts', 'elsewhere.1.1.x.1'), 'of another namespace, and young')
    const again = await FolderBlobStore.open(folder)
    again.close()
    expect(readdirSync(join(folder, 'drafts'))).toEqual(['elsewhere.1.1.x.1'])
  })

  it('says what to do about errors of the file system', () => {
    const judged = (code: string) => folderError('/objects', 'cannot write a/b', Object.assign(new Error('words'), { code }))
    expect(judged('EACCES')).toMatchObject({
      code: 'object_store_refused',
      message: expect.stringMatching(/^\/objects: cannot write a\/b: .*must belong to the user/),
    })
    expect(judged('ENOSPC')).toMatchObject({ code: 'object_store_unavailable', message: expect.stringContaining('free some space') })
    expect(judged('EWHATEVER')).toMatchObject({ code: 'object_store_refused', message: expect.stringContaining('words (EWHATEVER)') })
    const fault = new TypeError('a fault of ours')
    expect(folderError('/objects', 'cannot write a/b', fault)).toBe(fault)
  })

  it('says so when a folder is in the place of an object', async () => {
    await store.put('a/b', Buffer.from('x'))
    await expect(store.put('a', Buffer.from('x'))).rejects.toMatchObject({ code: 'object_store_refused' })
    await expect(store.put('a/b/c', Buffer.from('x'))).rejects.toMatchObject({ code: 'object_store_refused' })
    expect(await store.get('a/b/c')).toBeUndefined()
  })
})
