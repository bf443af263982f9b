import { hash } from 'node:crypto'
import { zstdCompressSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { MemoryBlobStore } from '../blobs/testing/memory-blob-store.ts'
import { decodeHead, encodeHead, type Head } from './head.ts'
import { ObjectWorkspaceRepository } from './object-workspace-repository.ts'
import { decodeManifest, encodeManifest, type StoredManifest } from './stored-manifest.ts'

const key = 'workspaces/w/head'
const digits = (length: number) => fc.array(fc.constantFrom(...'0123456789abcdef'), { minLength: length, maxLength: length }).map((found) => found.join(''))
const count = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER })
const image = fc.record({ name: fc.string({ minLength: 1, maxLength: 40, unit: 'grapheme' }), digest: fc.string({ minLength: 1, maxLength: 90 }) })
const version = fc.record({
  sha256: digits(64),
  suffix: digits(16),
  sizeBytes: count,
  entryCount: count,
  uploadedBytes: count,
  image,
  reason: fc.constantFrom('sync' as const, 'fork' as const, 'restore' as const),
})
const heads: fc.Arbitrary<Head> = fc
  .record({ holder: digits(32), first: fc.integer({ min: 1, max: 1e9 }), versions: fc.array(version, { maxLength: 5 }) })
  .map(({ holder, first, versions }) => ({
    storageId: 'w',
    fence: 9,
    holder,
    touch: holder.slice(16),
    versions: versions.map(({ suffix, ...rest }, index) => ({
      ...rest,
      version: first + index,
      fence: 3,
      key: `workspaces/w/versions/${first + index}-3-${suffix}`,
      createdAt: new Date(index * 1e9).toISOString(),
    })),
  }))
const size = fc.integer({ min: 0, max: 2 ** 40 })
const manifests: fc.Arbitrary<StoredManifest> = fc
  .record({
    image,
    sizeBytes: count,
    entryCount: count,
    packs: fc.uniqueArray(digits(64), { minLength: 1, maxLength: 8 }),
    copy: fc.oneof(fc.constant(''), digits(16)),
    segments: fc.array(fc.record({ place: fc.nat(), offset: size, lengthBytes: size, rawBytes: size, sha256: digits(64) }), { maxLength: 5 }),
  })
  .map(({ packs, copy, segments, ...rest }) => {
    const sorted = packs.toSorted()
    const placed = segments.map(({ place, ...segment }) => ({ ...segment, pack: sorted[place % sorted.length] ?? '' }))
    return { manifest: { ...rest, packs: sorted, segments: placed }, copies: sorted.map(() => copy) }
  })

/** A document with a right checksum, whatever is in it. */
const document = (json: string | Buffer) => {
  const packed = zstdCompressSync(json)
  return Buffer.concat([Buffer.from('MGSD\x01', 'latin1'), hash('sha256', packed, 'buffer'), packed])
}
const damaged = { code: 'workspace_damaged', details: { object: key } }

describe('documents', () => {
  it('are read as they were written', async () => {
    await fc.assert(fc.asyncProperty(heads, async (head) => void expect(await decodeHead(key, await encodeHead(head))).toEqual(head)))
    await fc.assert(fc.asyncProperty(manifests, async (manifest) => void expect(await decodeManifest(key, await encodeManifest(manifest))).toEqual(manifest)))
  })

  it('are the same bytes for the same contents', async () => {
    await fc.assert(
      fc.asyncProperty(
        manifests,
        async (manifest) => void expect((await encodeManifest(manifest)).equals(await encodeManifest(structuredClone(manifest)))).toBe(true),
      ),
    )
  })

  it('are refused with any bit changed or cut short', async () => {
    const written = { storageId: 'w', fence: 1, holder: '0'.repeat(32), touch: '0'.repeat(16), versions: [] }
    const bytes = await encodeHead(written)
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const changed = Buffer.from(bytes)
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      await expect(decodeHead(key, changed)).rejects.toMatchObject(damaged)
    }
    for (let length = 0; length < bytes.length; length++) await expect(decodeHead(key, bytes.subarray(0, length))).rejects.toMatchObject(damaged)
  })

  it('are refused whatever else they hold', async () => {
    const read = async (bytes: Buffer) => {
      for (const decode of [decodeHead, decodeManifest]) {
        await decode(key, bytes).then(
          () => undefined,
          (error: unknown) => expect(error).toMatchObject(damaged),
        )
      }
    }
    await fc.assert(fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), (bytes) => read(Buffer.from(bytes))))
    await fc.assert(fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), (bytes) => read(document(Buffer.from(bytes)))))
    await fc.assert(
      fc.asyncProperty(fc.json(), (text) => read(document(text))),
      { numRuns: 200 },
    )
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom('head', 'version'),
        fc.dictionary(fc.constantFrom('fence', 'holder', 'versions', 'packs', 'copies', 'segments', 'image', 'storage_id', 'size_bytes'), fc.jsonValue()),
        (kind, fields) => read(document(JSON.stringify({ kind, format: 1, ...fields }))),
      ),
      { numRuns: 500 },
    )
  })

  it('are refused with one field wrong', async () => {
    const head: Head = {
      storageId: 'w',
      fence: 5,
      holder: 'a'.repeat(32),
      touch: 'c'.repeat(16),
      versions: [1, 2].map((number) => ({
        version: number,
        key: `workspaces/w/versions/${number}-5-${'0'.repeat(16)}`,
        sha256: 'b'.repeat(64),
        fence: 5,
        createdAt: '2026-01-01T00:00:00.000Z',
        reason: 'sync',
        sizeBytes: 1,
        entryCount: 1,
        uploadedBytes: 1,
        image: { name: 'i', digest: 'd' },
      })),
    }
    const text = JSON.stringify({
      kind: 'head',
      format: 1,
      storage_id: 'w',
      fence: 5,
      holder: head.holder,
      touch: head.touch,
      versions: head.versions.map(({ createdAt, sizeBytes, entryCount, uploadedBytes, ...rest }) => ({
        ...rest,
        created_at: createdAt,
        size_bytes: sizeBytes,
        entry_count: entryCount,
        uploaded_bytes: uploadedBytes,
      })),
    })
    expect(await decodeHead(key, document(text))).toEqual(head)
    const replacements: [string, string][] = [
      ['"format":1', '"format":2'],
      ['"format":1', '"format":"1"'],
      ['"fence":5', '"fence":1e999'],
      ['"fence":5', '"fence":9007199254740993'],
      ['"fence":5', '"fence":-1'],
      ['"fence":5', '"fence":4'],
      ['"fence":5', '"fence":5.5'],
      ['"fence":5', '"fence":5,"other":1'],
      ['"fence":5', '"fence":5,"__proto__":{}'],
      ['"kind":"head"', '"kind":"version"'],
      ['"storage_id":"w"', '"storage_id":"v"'],
      ['"version":2', '"version":3'],
      ['"version":2', '"version":1'],
      ['"version":1', '"version":0'],
      ['versions/1-5', 'versions/../1-5'],
      ['workspaces/w/versions/2', 'workspaces/v/versions/2'],
      ['"reason":"sync"', '"reason":"synch"'],
      ['T00:00:00.000Z', 'T99:00:00.000Z'],
      ['"size_bytes":1', '"size_bytes":null'],
      ['"name":"i"', '"name":""'],
      ['"image":{', '"image":{"more":1,'],
      ['"image":{"name":"i","digest":"d"}', '"image":[]'],
    ]
    for (const [from, to] of replacements) {
      expect(text, from).toContain(from)
      await expect(decodeHead(key, document(text.replace(from, to))), to).rejects.toMatchObject(damaged)
    }
    await expect(decodeHead(key, document(text.replace(/"versions":\[.*\]/, `"versions":[${Array(3000).fill('{}').join()}]`)))).rejects.toMatchObject(damaged)
  })

  it('do not unpack to more than they may', async () => {
    await expect(decodeHead(key, document(Buffer.alloc(20 << 20, ' ')))).rejects.toMatchObject(damaged)
    await expect(decodeHead(key, document('['.repeat(1 << 20)))).rejects.toMatchObject(damaged)
  })

  it('that are damaged in a store are named by every reader', async () => {
    const store = new MemoryBlobStore()
    const repository = new ObjectWorkspaceRepository(store)
    const empty = { image: { name: 'i', digest: 'd' }, sizeBytes: 1, entryCount: 1, segments: [], packs: [] }
    const pack = (await repository.packs.put(Buffer.from('x'))).id
    const { claim } = await repository.commit(await repository.claim('w', 1), { ...empty, packs: [pack] }, { reason: 'sync', uploadedBytes: 1 })
    const versionKey = [...store.objects.keys()].find((name) => name.includes('/versions/')) ?? ''
    const version = store.objects.get(versionKey)
    const other = await encodeManifest({ manifest: empty, copies: [] })
    for (const bytes of [undefined, Buffer.alloc(0), other]) {
      store.objects.delete(versionKey)
      if (bytes) store.objects.set(versionKey, { bytes, modifiedAt: new Date() })
      await expect(new ObjectWorkspaceRepository(store).manifest('w')).rejects.toMatchObject({ code: 'workspace_damaged', details: { object: versionKey } })
    }
    // The next version can be saved all the same.
    const next = await new ObjectWorkspaceRepository(store).commit(claim, { ...empty, sizeBytes: 2, packs: [pack] }, { reason: 'sync', uploadedBytes: 1 })
    expect(next.version.version).toBe(2)
    if (version) store.objects.set(versionKey, version)
    store.objects.set(key, { bytes: Buffer.from('no head'), modifiedAt: new Date() })
    const reader = new ObjectWorkspaceRepository(store)
    await expect(reader.claim('w', 2)).rejects.toMatchObject(damaged)
    await expect(reader.versions('w')).rejects.toMatchObject(damaged)
    await expect(reader.manifest('w')).rejects.toMatchObject(damaged)
    await expect(reader.commit(claim, empty, { reason: 'sync', uploadedBytes: 0 })).rejects.toMatchObject(damaged)
  })
})
