import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type BlobInfo, type BlobStore, maxBlobBytes } from './blob-store.ts'
import { checkBlobStore } from './check-blob-store.ts'

export interface BlobStoreGround {
  /** Two stores over the same objects, as two servers have. */
  readonly stores: readonly [BlobStore, BlobStore]
  dispose(): Promise<void>
}

/** What every store promises, as tests. Each test has keys of its own. */
export function describeBlobStoreConformance(name: string, setUp: () => Promise<BlobStoreGround>) {
  describe(`${name} as a blob store`, { timeout: 60_000 }, () => {
    let ground: BlobStoreGround
    let store: BlobStore
    let other: BlobStore
    let count = 0
    const fresh = () => `test-${++count}/object`
    const bytesOf = async (key: string, from = store) => (await from.get(key))?.bytes
    const listed = async (prefix: string) => {
      const found: BlobInfo[] = []
      for await (const info of store.list(prefix)) found.push(info)
      return found
    }

    beforeAll(async () => {
      ground = await setUp()
      ;[store, other] = ground.stores
    })
    afterAll(() => ground?.dispose())

    it('passes the check at opening', async () => {
      await checkBlobStore(store)
      expect(await listed('checks/')).toEqual([])
    })

    it('gives back what was put, to everybody', async () => {
      const key = fresh()
      const bytes = randomBytes(300_000)
      expect(await store.put(key, bytes)).toBeDefined()
      expect((await bytesOf(key))?.equals(bytes)).toBe(true)
      expect((await bytesOf(key, other))?.equals(bytes)).toBe(true)
    })

    it('knows nothing of what was never put', async () => {
      expect(await store.get('never/put')).toBeUndefined()
      expect(await store.get('never')).toBeUndefined()
      expect(await listed('never')).toEqual([])
    })

    it('keeps empty objects and such of the greatest size', async () => {
      const key = fresh()
      await store.put(key, Buffer.alloc(0))
      expect(await bytesOf(key)).toHaveLength(0)
      const great = Buffer.alloc(maxBlobBytes, 'mags')
      await store.put(key, great)
      expect((await bytesOf(key))?.equals(great)).toBe(true)
      await expect(store.put(key, Buffer.alloc(maxBlobBytes + 4096))).rejects.toMatchObject({ code: 'object_store_refused' })
      await store.delete([key])
    })

    it('replaces an object as a whole, with another etag', async () => {
      const key = fresh()
      const first = await store.put(key, Buffer.from('a long first text'))
      const second = await other.put(key, Buffer.from('short'))
      expect(first?.etag).not.toBe(second?.etag)
      const found = await store.get(key)
      expect([found?.bytes.toString(), found?.etag]).toEqual(['short', second?.etag])
    })

    it('takes a view of a larger buffer for what it is', async () => {
      const key = fresh()
      await store.put(key, Buffer.from('0123456789').subarray(3, 6))
      expect(String(await bytesOf(key))).toBe('345')
    })

    it('puts only what is absent when told so', async () => {
      const key = fresh()
      expect(await store.put(key, Buffer.from('one'), { kind: 'absent' })).toBeDefined()
      expect(await other.put(key, Buffer.from('two'), { kind: 'absent' })).toBeUndefined()
      expect(String(await bytesOf(key))).toBe('one')
      await store.delete([key])
      expect(await other.put(key, Buffer.from('three'), { kind: 'absent' })).toBeDefined()
      expect(String(await bytesOf(key))).toBe('three')
    })

    it('puts only over what is unchanged when told so', async () => {
      const key = fresh()
      const first = await store.put(key, Buffer.from('one'))
      const second = await other.put(key, Buffer.from('two'), { kind: 'unchanged', etag: first?.etag ?? '' })
      expect(second).toBeDefined()
      expect(await store.put(key, Buffer.from('six'), { kind: 'unchanged', etag: first?.etag ?? '' })).toBeUndefined()
      expect(String(await bytesOf(key))).toBe('two')
      await store.delete([key])
      expect(await store.put(key, Buffer.from('six'), { kind: 'unchanged', etag: second?.etag ?? '' })).toBeUndefined()
      expect(await bytesOf(key)).toBeUndefined()
    })

    it('lets one of many win that create an object at once', async () => {
      const key = fresh()
      const results = await Promise.all(
        Array.from({ length: 12 }, (_, index) => (index % 2 ? store : other).put(key, Buffer.from(`writer ${index}`), { kind: 'absent' })),
      )
      const winners = results.flatMap((result, index) => (result ? [index] : []))
      expect(winners).toHaveLength(1)
      expect(String(await bytesOf(key))).toBe(`writer ${winners[0]}`)
    })

    it('counts right when many swap at once', async () => {
      const key = fresh()
      await store.put(key, Buffer.from('0 nobody'))
      // Who wrote it is part of it: a store that lost the answer tells its own object from another's by the bytes.
      const add = async (through: BlobStore, writer: string) => {
        for (;;) {
          const found = await through.get(key)
          if (!found) throw new Error('it is gone')
          const next = `${Number.parseInt(String(found.bytes), 10) + 1} ${writer}`
          if (await through.put(key, Buffer.from(next), { kind: 'unchanged', etag: found.etag })) return
        }
      }
      await Promise.all(
        Array.from({ length: 6 }, async (_, index) => {
          for (let turn = 0; turn < 4; turn++) await add(index % 2 ? store : other, `${index}.${turn}`)
        }),
      )
      expect(Number.parseInt(String(await bytesOf(key)), 10)).toBe(24)
    })

    it('deletes what is there and does not mind what is not', async () => {
      const [first, second] = [fresh(), fresh()]
      await store.put(first, Buffer.from('1'))
      await store.put(second, Buffer.from('2'))
      await store.delete([first, 'never/there', second, first])
      expect([await bytesOf(first), await bytesOf(second)]).toEqual([undefined, undefined])
      await store.delete([])
    })

    it('lists keys in the order of their bytes, with sizes and times', async () => {
      const since = Date.now()
      const keys = ['l/a', 'l/a-b', 'l/a.b/c', 'l/aa/b', 'l/aB', 'l/b/c/d', 'l/b/c0', 'l/Z', 'l/_', 'l-m'].sort()
      for (const key of [...keys].reverse()) await store.put(key, Buffer.from(key))
      const found = await listed('l/')
      expect(found.map(({ key }) => key)).toEqual(keys.filter((key) => key.startsWith('l/')))
      for (const { key, sizeBytes, modifiedAt } of found) {
        expect(sizeBytes).toBe(key.length)
        expect(Math.abs(modifiedAt.getTime() - since)).toBeLessThan(60_000)
      }
      expect((await listed('l/a')).map(({ key }) => key)).toEqual(keys.filter((key) => key.startsWith('l/a')))
      expect((await listed('l/b/')).map(({ key }) => key)).toEqual(['l/b/c/d', 'l/b/c0'])
      expect((await listed('l')).map(({ key }) => key)).toEqual(keys)
      expect((await listed('l/b/c0')).map(({ key }) => key)).toEqual(['l/b/c0'])
      await store.delete(keys)
      expect(await listed('l')).toEqual([])
    })

    it('refuses what is no key', async () => {
      for (const key of [
        '',
        '/a',
        'a/',
        'a//b',
        '..',
        'a/../b',
        '.',
        'a/./b',
        'ä',
        'a b',
        'a\0',
        'a\\b',
        'a\n',
        `${'x'.repeat(201)}`,
        `${'abc/'.repeat(128)}x`,
      ]) {
        await expect((async () => store.put(key, Buffer.alloc(1)))(), key).rejects.toMatchObject({ code: 'internal' })
        await expect((async () => store.get(key))(), key).rejects.toMatchObject({ code: 'internal' })
        await expect((async () => store.delete([key]))(), key).rejects.toMatchObject({ code: 'internal' })
      }
      await expect(listed('../')).rejects.toMatchObject({ code: 'internal' })
      expect(await store.put('...a/-_.Z9', Buffer.from('k'))).toBeDefined()
      await store.delete(['...a/-_.Z9'])
    })

    it('stops reading when told so', async () => {
      const key = fresh()
      await store.put(key, Buffer.alloc(1000))
      const reason = new Error('not wanted any more')
      await expect(store.get(key, AbortSignal.abort(reason))).rejects.toBe(reason)
    })
  })
}
