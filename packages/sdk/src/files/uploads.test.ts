import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { MagsApiError } from '../errors.ts'
import { Mags } from '../mags.ts'
import { type StubRequest, sendJson, startStub } from '../testing/start-stub.ts'

const client = (apiUrl: string, options = {}) => new Mags({ apiUrl, apiToken: 'secret', ...options })

async function newFolder() {
  const path = await mkdtemp(join(tmpdir(), 'mags-sdk-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) }
}

/** The one part of a form, read by the platform. */
async function fileOf(request: StubRequest | undefined): Promise<File> {
  const headers = { 'content-type': request?.headers['content-type'] ?? '' }
  const form = await new Response(new Uint8Array(request?.bytes ?? []), { headers }).formData()
  return form.get('file') as File
}

describe('uploadFile', () => {
  it('sends a file from disk as it is read, with its length, and reports how far it is', async () => {
    await using folder = await newFolder()
    await using stub = await startStub((_request, response) => sendJson(response, 201, { file_id: 'f1', file_name: 'a', size: 1 }))
    const content = Buffer.alloc(700_000, 'mags')
    await writeFile(join(folder.path, 'dätä 1.bin'), content)
    const progress: [number, number | undefined][] = []
    const answer = await client(stub.apiUrl).uploadFile(join(folder.path, 'dätä 1.bin'), { onProgress: (sent, total) => progress.push([sent, total]) })
    expect([answer.fileId, answer.file_id]).toEqual(['f1', 'f1'])
    const [request] = stub.requests
    expect(Number(request?.headers['content-length'])).toBe(request?.bytes.length)
    const file = await fileOf(request)
    expect(file.name).toBe('dätä 1.bin')
    expect(Buffer.from(await file.arrayBuffer()).equals(content)).toBe(true)
    expect(progress.at(-1)).toEqual([content.length, content.length])
    expect(progress.length).toBeGreaterThan(1)
  })

  it('does not let a name change the form', async () => {
    await using stub = await startStub((_request, response) => sendJson(response, 201, { file_id: 'f1' }))
    await client(stub.apiUrl).uploadFile({ name: 'a"; name="other\\\r\n', content: '' })
    expect(stub.requests[0]?.body).toContain('name="file"; filename="a\\"; name=\\"other\\\\%0D%0A"\r\n')
  })

  it('sends content that comes in parts, once', async () => {
    await using stub = await startStub((_request, response) => sendJson(response, 503, { error: 'starting', code: 'no_capacity' }, { 'retry-after': '0' }))
    const parts = async function* () {
      yield Buffer.from('a,b')
      yield Buffer.from('\n1,2\n')
    }
    await expect(client(stub.apiUrl).uploadFile({ name: 'x.csv', content: parts() })).rejects.toMatchObject({ status: 503 })
    expect(stub.requests).toHaveLength(1)
    expect(stub.requests[0]?.headers['transfer-encoding']).toBe('chunked')
    expect(await (await fileOf(stub.requests[0])).text()).toBe('a,b\n1,2\n')
  })

  it('sends what can be read again a second time when it is asked to', async () => {
    await using stub = await startStub((_request, response, number) =>
      number === 1 ? sendJson(response, 503, { error: 'starting', code: 'no_capacity' }, { 'retry-after': '0' }) : sendJson(response, 201, { file_id: 'f1' }),
    )
    await client(stub.apiUrl).uploadFile({ name: 'x', content: 'again' })
    expect(await (await fileOf(stub.requests[1])).text()).toBe('again')
  })

  it("throws the system's error for a file that is not there, and says when one shrinks", async () => {
    await using folder = await newFolder()
    await using stub = await startStub((_request, response) => sendJson(response, 201, { file_id: 'f1' }))
    await expect(client(stub.apiUrl).uploadFile(join(folder.path, 'none'))).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(client(stub.apiUrl).uploadFile(folder.path)).rejects.toThrow(/not a regular file/)
    const path = join(folder.path, 'log')
    await writeFile(path, Buffer.alloc(1_000_000))
    const shrink = () => void truncate(path, 0)
    await expect(client(stub.apiUrl).uploadFile(path, { onProgress: shrink })).rejects.toThrow(/became shorter/)
  })
})

describe('uploadFiles', () => {
  const answering = (request: StubRequest, response: Parameters<typeof sendJson>[0], number: number) =>
    request.method === 'DELETE' ? sendJson(response, 200, { success: true }) : sendJson(response, 201, { file_id: `f${number}`, file_name: '', size: 0 })

  it('gives the answers in the order of the sources', async () => {
    await using stub = await startStub((request, response) => {
      const name = /filename="(\w)"/.exec(request.body)?.[1]
      sendJson(response, 201, { file_id: name, file_name: name, size: 0 })
    })
    const sources = ['a', 'b', 'c', 'd', 'e'].map((name) => ({ name, content: name }))
    expect((await client(stub.apiUrl).uploadFiles(sources)).map((file) => file.fileId)).toEqual(['a', 'b', 'c', 'd', 'e'])
  })

  it('takes back what is up when one is refused', async () => {
    await using stub = await startStub((request, response, number) =>
      request.body.includes('filename="big"') ? sendJson(response, 413, { error: 'too large', code: 'too_large' }) : answering(request, response, number),
    )
    const sources = ['a', 'b', 'c', 'd', 'big'].map((name) => ({ name, content: name }))
    await expect(client(stub.apiUrl).uploadFiles(sources)).rejects.toThrow(MagsApiError)
    const deleted = stub.requests.filter(({ method }) => method === 'DELETE').map(({ url }) => url.pathname.split('/').at(-1))
    const uploaded = stub.requests.flatMap(({ method, body }, index) => (method === 'POST' && !body.includes('"big"') ? [`f${index + 1}`] : []))
    expect(deleted.sort()).toEqual(uploaded.sort())
  })

  it('takes back what is up when it is aborted', async () => {
    const controller = new AbortController()
    await using stub = await startStub((request, response, number) => {
      // The last one begins when `first` is answered, and the two beside it never are.
      if (request.body.includes('filename="last"')) controller.abort(new Error('enough'))
      else if (request.method === 'DELETE' || request.body.includes('filename="first"')) answering(request, response, number)
    })
    const sources = ['first', 'b', 'c', 'last'].map((name) => ({ name, content: name }))
    await expect(client(stub.apiUrl).uploadFiles(sources, { signal: controller.signal })).rejects.toThrow('enough')
    expect(stub.requests.filter(({ method }) => method === 'DELETE')).toHaveLength(1)
  })
})
