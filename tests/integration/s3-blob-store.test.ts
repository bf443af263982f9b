import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { describeBlobStoreConformance } from '../../packages/host/src/workspaces/blobs/blob-store-conformance.ts'
import { openBlobStore } from '../../packages/host/src/workspaces/blobs/open-blob-store.ts'
import { S3BlobStore } from '../../packages/host/src/workspaces/blobs/s3-blob-store.ts'
import type { S3Config } from '../../packages/host/src/workspaces/blobs/s3-config.ts'
import { canTestS3, startS3Server, type TestS3Server } from '../kit/s3-server.ts'

describe.skipIf(!canTestS3())('S3', () => {
  let server: TestS3Server
  let config: S3Config
  beforeAll(async () => {
    server = await startS3Server()
    config = { bucket: await server.createBucket(), endpoint: server.endpoint, region: 'us-east-1', prefix: 'some/where', credentials: server.credentials }
  })
  afterAll(() => server?.[Symbol.asyncDispose]())

  describeBlobStoreConformance('a bucket', async () => {
    const stores = [await S3BlobStore.open(config), await S3BlobStore.open(config)] as const
    return {
      stores,
      dispose: async () => {
        for (const store of stores) store.close()
      },
    }
  })

  const opening = (changes: Partial<S3Config>) => openBlobStore({ place: { kind: 's3', s3: { ...config, attempts: 2, ...changes } } })

  it('lists more than one page', async () => {
    const store = await opening({ prefix: 'pages' })
    const keys = Array.from({ length: 1005 }, (_, index) => `many/${String(index).padStart(5, '0')}`)
    for (let from = 0; from < keys.length; from += 67) await Promise.all(keys.slice(from, from + 67).map((key) => store.put(key, Buffer.from('x'))))
    expect((await Array.fromAsync(store.list('many/'))).map(({ key }) => key)).toEqual(keys)
    await store.delete(keys)
    expect(await Array.fromAsync(store.list('many/'))).toEqual([])
    store.close()
  })

  it('says what to set right', async () => {
    const { accessKeyId, secretAccessKey } = server.credentials
    const refused = (message: RegExp) => expect.objectContaining({ code: 'object_store_refused', message: expect.stringMatching(message) })
    await expect(opening({ credentials: { accessKeyId, secretAccessKey: 'wrong' } })).rejects.toEqual(refused(/MAGS_S3_SECRET_ACCESS_KEY/))
    await expect(opening({ credentials: { accessKeyId: 'nobody', secretAccessKey } })).rejects.toEqual(refused(/MAGS_S3_ACCESS_KEY_ID/))
    await expect(opening({ bucket: 'no-such-bucket' })).rejects.toEqual(refused(/no such bucket/))
    for (const endpoint of ['localhost:80', 'http://user:password@host', 'http://host/path'])
      await expect(opening({ endpoint })).rejects.toEqual(refused(/MAGS_S3_ENDPOINT/))
    const words = await opening({ credentials: { accessKeyId, secretAccessKey: 'very secret' } }).catch(String)
    expect(words).not.toContain('very secret')
  })

  it('says that the store does not answer, and goes on when it does', async () => {
    const store = await opening({ prefix: 'away' })
    await store.put('kept', Buffer.from('as it was'))
    await server.stop()
    await expect(store.get('kept')).rejects.toMatchObject({ code: 'object_store_unavailable' })
    await expect(store.put('kept', Buffer.from('x'))).rejects.toMatchObject({ code: 'object_store_unavailable' })
    await expect(opening({})).rejects.toMatchObject({ code: 'object_store_unavailable' })
    await server.start()
    expect(String((await store.get('kept'))?.bytes)).toBe('as it was')
    store.close()
  })
})

/** A server that answers as it likes, to play what no good one does. */
describe('a bad S3 server', () => {
  const withServer = async (
    answer: (request: {
      method: string
      url: string
      headers: NodeJS.Dict<string | string[]>
      body: Buffer
      count: number
    }) => { status: number; body?: string | Buffer; headers?: Record<string, string> } | undefined,
    use: (config: S3Config) => Promise<void>,
  ) => {
    let count = 0
    const server = createServer(async (request, response) => {
      const body = Buffer.concat(await request.toArray())
      const said = answer({ method: request.method ?? '', url: request.url ?? '', headers: request.headers, body, count: ++count })
      if (!said) return void request.socket.destroy()
      response.writeHead(said.status, said.headers ?? {}).end(said.body)
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    try {
      await use({
        bucket: 'bucket',
        endpoint: `http://127.0.0.1:${port}`,
        region: 'r',
        prefix: '',
        credentials: { accessKeyId: 'a', secretAccessKey: 's' },
        attempts: 3,
        idleTimeoutMs: 2000,
      })
    } finally {
      server.closeAllConnections()
      server.close()
    }
  }
  const error = (code: string) => `<?xml version="1.0"?><Error><Code>${code}</Code><Message>words</Message></Error>`

  it('is refused when it ignores conditions', async () => {
    await withServer(
      ({ method }) => ({ status: method === 'DELETE' ? 204 : 200, headers: { ETag: '"e"' } }),
      async (config) => {
        await expect(openBlobStore({ place: { kind: 's3', s3: config } })).rejects.toMatchObject({
          code: 'object_store_refused',
          message: /If-None-Match: \* is ignored/,
        })
      },
    )
  })

  it('is refused when it ignores only If-Match', async () => {
    const seen = new Set<string>()
    await withServer(
      ({ method, url, headers }) => {
        if (method === 'PUT' && headers['if-none-match'] && seen.has(url)) return { status: 412, body: error('PreconditionFailed') }
        seen.add(url)
        return { status: method === 'DELETE' ? 204 : 200, headers: { ETag: '"e"' } }
      },
      async (config) => {
        await expect(openBlobStore({ place: { kind: 's3', s3: config } })).rejects.toMatchObject({
          code: 'object_store_refused',
          message: /If-Match is ignored/,
        })
      },
    )
  })

  it('that is overloaded is asked again', async () => {
    await withServer(
      ({ count }) => (count < 3 ? { status: 503, body: error('SlowDown') } : { status: 200, body: 'fine', headers: { ETag: '"e"' } }),
      async (config) => {
        const store = await S3BlobStore.open(config)
        expect(String((await store.get('a'))?.bytes)).toBe('fine')
        store.close()
      },
    )
  })

  it('that loses the answer to a conditional put is not taken for another writer', async () => {
    let kept: Buffer | undefined
    await withServer(
      ({ method, body }) => {
        if (method === 'GET') return { status: 200, body: kept ?? '', headers: { ETag: '"kept"' } }
        if (kept) return { status: 412, body: error('PreconditionFailed') }
        kept = body
        return undefined
      },
      async (config) => {
        const store = await S3BlobStore.open(config)
        expect(await store.put('head', Buffer.from('mine'), { kind: 'absent' })).toEqual({ etag: '"kept"' })
        expect(await store.put('head', Buffer.from('of another'), { kind: 'absent' })).toBeUndefined()
        store.close()
      },
    )
  })

  it('that cuts contents short or says nothing is unavailable', async () => {
    await withServer(
      ({ url }) => (url.includes('short') ? { status: 200, body: 'abc', headers: { ETag: '"e"', 'Content-Length': '10' } } : undefined),
      async (config) => {
        const store = await S3BlobStore.open({ ...config, attempts: 1, idleTimeoutMs: 500 })
        await expect(store.get('short')).rejects.toMatchObject({ code: 'object_store_unavailable' })
        await expect(store.get('gone')).rejects.toMatchObject({ code: 'object_store_unavailable' })
        store.close()
      },
    )
  })
})
