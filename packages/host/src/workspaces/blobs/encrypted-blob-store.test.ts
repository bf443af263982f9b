import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { describeBlobStoreConformance } from './blob-store-conformance.ts'
import { EncryptedBlobStore } from './encrypted-blob-store.ts'
import { encryptionKey, readEncryptionKey } from './encryption-key.ts'
import { FolderBlobStore } from './folder-blob-store.ts'
import { openBlobStore } from './open-blob-store.ts'
import { MemoryBlobStore } from './testing/memory-blob-store.ts'

describeBlobStoreConformance('an encrypted folder', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mags-blobs-'))
  const key = encryptionKey(randomBytes(32))
  const open = async () => new EncryptedBlobStore(await FolderBlobStore.open(folder), key)
  const stores = [await open(), await open()] as const
  return {
    stores,
    dispose: async () => {
      for (const store of stores) store.close()
      rmSync(folder, { recursive: true })
    },
  }
})

describeBlobStoreConformance('memory', async () => {
  const store = new MemoryBlobStore()
  return { stores: [store, new MemoryBlobStore({ objects: store.objects })], dispose: async () => undefined }
})

describe('encrypted objects', () => {
  const key = encryptionKey(Buffer.alloc(32, 7))
  const plain = Buffer.from('what nobody else may read, what nobody else may read')
  const sealed = async () => {
    const inner = new MemoryBlobStore()
    const store = new EncryptedBlobStore(inner, key)
    await store.put('packs/one', plain)
    const object = inner.objects.get('packs/one')
    if (!object) throw new Error('nothing was put')
    return { inner, store, object }
  }

  it('are unreadable and different each time', async () => {
    const { inner, store, object } = await sealed()
    const before = object.bytes
    expect(before.includes('nobody')).toBe(false)
    await store.put('packs/one', plain)
    expect(inner.objects.get('packs/one')?.bytes.equals(before)).toBe(false)
  })

  it('are refused when any bit is another', async () => {
    const { inner, store, object } = await sealed()
    for (let bit = 0; bit < object.bytes.length * 8; bit++) {
      const bytes = Buffer.from(object.bytes)
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      inner.objects.set('packs/one', { ...object, bytes })
      await expect(store.get('packs/one')).rejects.toMatchObject({ code: 'workspace_damaged', message: /packs\/one/ })
    }
  })

  it('are refused when cut short, and under another name', async () => {
    const { inner, store, object } = await sealed()
    for (let length = 0; length < object.bytes.length; length++) {
      inner.objects.set('packs/one', { ...object, bytes: object.bytes.subarray(0, length) })
      await expect(store.get('packs/one')).rejects.toMatchObject({ code: 'workspace_damaged' })
    }
    inner.objects.set('packs/two', object)
    await expect(store.get('packs/two')).rejects.toMatchObject({ code: 'workspace_damaged', message: /packs\/two/ })
  })

  it('name another key as the cause', async () => {
    const { inner } = await sealed()
    await expect(new EncryptedBlobStore(inner, encryptionKey(Buffer.alloc(32, 8))).get('packs/one')).rejects.toThrow('another key')
  })
})

describe('opening a store', () => {
  let folder: string
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'mags-blobs-'))
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  const keyFile = (name: string, contents: string | Buffer) => {
    const path = join(folder, name)
    writeFileSync(path, contents)
    return path
  }
  const open = async (place: string, key?: string) => {
    const store = await openBlobStore({ place: { kind: 'folder', folder: join(folder, place) }, ...(key === undefined ? {} : { keyFile: key }) })
    store.close()
  }

  it('remembers whether and with which key it is encrypted', async () => {
    const [first, second] = [keyFile('first', randomBytes(32)), keyFile('second', `${randomBytes(32).toString('hex')}\n`)]
    await open('encrypted', first)
    await open('encrypted', first)
    await expect(open('encrypted', second)).rejects.toMatchObject({ code: 'object_store_refused', message: /another key/ })
    await expect(open('encrypted')).rejects.toMatchObject({ code: 'object_store_refused', message: /Set MAGS_ENCRYPTION_KEY_FILE/ })
    await open('plain')
    await open('plain')
    await expect(open('plain', first)).rejects.toMatchObject({ code: 'object_store_refused', message: /not encrypted/ })
  })

  it('refuses objects of unknown origin and formats of later releases', async () => {
    const strange = await FolderBlobStore.open(join(folder, 'strange'))
    await strange.put('packs/aa/bb', Buffer.from('x'))
    await expect(open('strange')).rejects.toMatchObject({ code: 'object_store_refused', message: /packs\/aa\/bb/ })
    await strange.put('format', Buffer.from('{"format":2,"encryption":"none"}'))
    await expect(open('strange')).rejects.toMatchObject({ message: /newer release/ })
    for (const words of ['', 'no json', 'null', '[]', '{"format":"1"}', 'x'.repeat(5000)]) {
      await strange.put('format', Buffer.from(words))
      await expect(open('strange')).rejects.toMatchObject({ code: 'object_store_refused', message: /cannot be read/ })
    }
    strange.close()
  })

  it('reads a key as bytes, hexadecimal or base64', async () => {
    const secret = randomBytes(32)
    for (const contents of [secret, secret.toString('hex'), `${secret.toString('base64')}\n`]) {
      expect((await readEncryptionKey(keyFile('any', contents))).secret.equals(secret)).toBe(true)
    }
    for (const contents of ['', 'short', secret.toString('hex').slice(1), randomBytes(33)]) {
      await expect(readEncryptionKey(keyFile('any', contents))).rejects.toMatchObject({ code: 'object_store_refused', message: /openssl rand/ })
    }
    await expect(readEncryptionKey(join(folder, 'nowhere'))).rejects.toMatchObject({ code: 'object_store_refused' })
  })
})
