import { randomBytes } from 'node:crypto'
import { rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { BlobStore } from '../../packages/host/src/workspaces/blobs/blob-store.ts'
import { openBlobStore } from '../../packages/host/src/workspaces/blobs/open-blob-store.ts'
import { ObjectWorkspaceRepository } from '../../packages/host/src/workspaces/repository/object-workspace-repository.ts'
import type { Manifest } from '../../packages/host/src/workspaces/repository/repository.ts'
import { canTestS3, startS3Server, type TestS3Server } from '../kit/s3-server.ts'

const why = { reason: 'sync', uploadedBytes: 0 } as const
const manifestOf = (packs: readonly string[], entryCount = 1): Manifest => ({
  image: { name: 'i', digest: 'd' },
  sizeBytes: 1,
  entryCount,
  segments: [],
  packs: packs.toSorted(),
})

describe.skipIf(!canTestS3())('workspaces in an S3 store', () => {
  let server: TestS3Server
  let keyFile: string
  const stack = new AsyncDisposableStack()
  const open = async (bucket: string, encrypted = false): Promise<BlobStore> => {
    const s3 = { bucket, endpoint: server.endpoint, region: 'us-east-1', prefix: 'mags', credentials: server.credentials, attempts: 2 }
    const store = await openBlobStore({ place: { kind: 's3', s3 }, ...(encrypted ? { keyFile } : {}) })
    stack.defer(() => store.close())
    return store
  }

  beforeAll(async () => {
    server = stack.use(await startS3Server())
    keyFile = join(tmpdir(), `mags-key-${randomBytes(6).toString('hex')}`)
    await writeFile(keyFile, randomBytes(32))
    stack.defer(() => rm(keyFile))
  })
  afterAll(() => stack.disposeAsync())

  it('go from one server to another, which fences the first off', async () => {
    for (const encrypted of [false, true]) {
      const bucket = await server.createBucket()
      const [first, second] = [new ObjectWorkspaceRepository(await open(bucket, encrypted)), new ObjectWorkspaceRepository(await open(bucket, encrypted))]
      const bytes = randomBytes(3 << 20)
      const { id, uploadedBytes } = await first.packs.put(bytes)
      expect(uploadedBytes).toBe(bytes.length)
      const saved = await first.commit(await first.claim('w', 1), manifestOf([id]), why)
      expect(await second.claim('w', 2)).toMatchObject({ version: 1 })
      const { manifest, version } = await second.manifest('w')
      expect(version).toEqual(saved.version)
      expect((await second.packs.get(manifest.packs[0] ?? '')).equals(bytes)).toBe(true)
      expect((await second.packs.put(bytes)).uploadedBytes).toBe(0)
      await expect(first.commit(saved.claim, manifestOf([id], 2), why)).rejects.toMatchObject({ code: 'workspace_fenced' })
    }
  })

  it('have one holder when many claim at once, and every commit counts', async () => {
    const bucket = await server.createBucket()
    const repositories = await Promise.all(Array.from({ length: 4 }, async () => new ObjectWorkspaceRepository(await open(bucket))))
    const outcomes = await Promise.allSettled(
      repositories.map(async (repository, index) => {
        let claim = await repository.claim('w', index + 1)
        for (let turn = 0; turn < 3; turn++) claim = (await repository.commit(claim, manifestOf([], (index + 1) * 10 + turn), why)).claim
      }),
    )
    expect(outcomes[3]?.status).toBe('fulfilled')
    for (const outcome of outcomes) if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'workspace_fenced' })
    const versions = (await repositories[0]?.versions('w'))?.toReversed() ?? []
    expect(versions.slice(-3).map(({ entryCount }) => entryCount)).toEqual([40, 41, 42])
    const marks = versions.map(({ entryCount }) => entryCount)
    expect(marks).toEqual(marks.toSorted((a, b) => a - b))
  })

  it('are saved once the store is back', async () => {
    const repository = new ObjectWorkspaceRepository(await open(await server.createBucket()))
    const claim = await repository.claim('w', 1)
    const { id } = await repository.packs.put(Buffer.from('x'))
    await server.stop()
    await expect(repository.commit(claim, manifestOf([id]), why)).rejects.toMatchObject({ code: 'object_store_unavailable' })
    await server.start()
    expect((await repository.commit(claim, manifestOf([id]), why)).version.version).toBe(1)
    expect(await repository.collectGarbage()).toEqual({ deletedPacks: 0, freedBytes: 0 })
  })
})
