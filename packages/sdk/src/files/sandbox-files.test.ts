import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { MagsConnectionError } from '../errors.ts'
import { Mags } from '../mags.ts'
import { sendJson, startStub } from '../testing/start-stub.ts'

const client = (apiUrl: string, options = {}) => new Mags({ apiUrl, apiToken: 'secret', ...options })

async function newFolder() {
  const path = await mkdtemp(join(tmpdir(), 'mags-sdk-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) }
}

describe('files of a sandbox', () => {
  it('are read whole, in parts, and by range', async () => {
    await using stub = await startStub((_request, response) => response.end(Buffer.from([0xff, 0, 1])))
    const mags = client(stub.apiUrl)
    expect(await mags.readFile('web', '/a b')).toEqual(Buffer.from([0xff, 0, 1]))
    expect(Buffer.concat(await Array.fromAsync(mags.streamFile('web', '/a b')))).toEqual(Buffer.from([0xff, 0, 1]))
    await mags.readFile('web', '/a', { offset: 5, length: 3 })
    await mags.readFile('web', '/a', { offset: 5 })
    expect(stub.requests[0]?.url.searchParams.get('path')).toBe('/a b')
    expect(stub.requests.map(({ headers }) => headers.range)).toEqual([undefined, undefined, 'bytes=5-7', 'bytes=5-'])
  })

  it('are written with their mode, from memory and in parts', async () => {
    await using stub = await startStub((_request, response) => response.writeHead(204).end())
    const mags = client(stub.apiUrl)
    await mags.writeFile('web', '/a', 'ü', { mode: 0o755 })
    await mags.writeFile('web', '/a', new Uint8Array([255]))
    await mags.writeFile(
      'web',
      '/a',
      (async function* () {
        yield Buffer.from('x')
      })(),
      { lengthBytes: 1 },
    )
    expect(stub.requests.map(({ method, url, headers, bytes }) => [method, url.search, headers['content-length'], bytes.toString('latin1')])).toEqual([
      ['PUT', '?path=%2Fa&mode=0755', '2', 'Ã¼'],
      ['PUT', '?path=%2Fa', '1', 'ÿ'],
      ['PUT', '?path=%2Fa', '1', 'x'],
    ])
  })

  it('are listed and deleted', async () => {
    const answer = { path: '/', entries: [{ name: 'a', type: 'file', size: 1, mode: '0644', mtime: '2026-01-01T00:00:00.000Z' }], truncated: false }
    await using stub = await startStub((request, response) => (request.method === 'GET' ? sendJson(response, 200, answer) : response.writeHead(204).end()))
    const mags = client(stub.apiUrl)
    expect((await mags.listFiles('web', '/', { limit: 5 })).entries[0]?.name).toBe('a')
    await mags.deleteFile('web', '/a', { recursive: true })
    expect(stub.requests.map(({ method, url }) => [method, url.pathname + url.search])).toEqual([
      ['GET', '/api/v1/mags-jobs/web/files/list?path=%2F&limit=5'],
      ['DELETE', '/api/v1/mags-jobs/web/files?path=%2Fa&recursive=true'],
    ])
  })
})

describe('copyIn', () => {
  it('sends a file with its permissions', async () => {
    await using folder = await newFolder()
    await using stub = await startStub((_request, response) => response.writeHead(204).end())
    const path = join(folder.path, 'run')
    await writeFile(path, Buffer.alloc(600_000, 1))
    await chmod(path, 0o750)
    await client(stub.apiUrl).copyIn('web', path, '/usr/local/bin/run')
    expect(stub.requests[0]?.url.search).toBe('?path=%2Fusr%2Flocal%2Fbin%2Frun&mode=0750')
    expect(stub.requests[0]?.bytes.length).toBe(600_000)
  })
})

describe('copyOut', () => {
  it('writes a file as it comes, in the place of what was there', async () => {
    await using folder = await newFolder()
    await using stub = await startStub((_request, response) => {
      response.writeHead(200, { 'content-length': '300000', 'x-mags-mode': '6755' })
      response.end(Buffer.alloc(300_000, 2))
    })
    const path = join(folder.path, 'out')
    await writeFile(path, 'old')
    const progress: [number, number | undefined][] = []
    await client(stub.apiUrl).copyOut('web', '/out', path, { onProgress: (received, total) => progress.push([received, total]) })
    expect(await readFile(path)).toEqual(Buffer.alloc(300_000, 2))
    expect((await stat(path)).mode & 0o7777).toBe(0o755)
    expect(progress.at(-1)).toEqual([300_000, 300_000])
  })

  it('leaves everything as it was when the file does not come whole', async () => {
    await using folder = await newFolder()
    await using stub = await startStub((_request, response) => {
      response.writeHead(200, { 'content-length': '300000' })
      response.write(Buffer.alloc(1000))
      setImmediate(() => response.destroy())
    })
    const path = join(folder.path, 'out')
    await writeFile(path, 'old')
    await expect(client(stub.apiUrl).copyOut('web', '/out', path)).rejects.toThrow(MagsConnectionError)
    expect(await readFile(path, 'utf8')).toBe('old')
    expect(await readdir(folder.path)).toEqual(['out'])
  })

  it('ends with the reason of an aborted signal', async () => {
    await using folder = await newFolder()
    await using stub = await startStub((_request, response) => void response.writeHead(200).write('begun'))
    const controller = new AbortController()
    const onProgress = () => controller.abort(new Error('enough'))
    await expect(client(stub.apiUrl).copyOut('web', '/out', join(folder.path, 'out'), { signal: controller.signal, onProgress })).rejects.toThrow('enough')
    expect(await readdir(folder.path)).toEqual([])
  })
})

describe('archives', () => {
  it('go both ways in parts', async () => {
    await using stub = await startStub((request, response) => (request.method === 'GET' ? response.end('tar') : response.writeHead(204).end()))
    const mags = client(stub.apiUrl)
    expect(Buffer.concat(await Array.fromAsync(mags.readArchive('web', '/d'))).toString()).toBe('tar')
    await mags.writeArchive(
      'web',
      '/d',
      (async function* () {
        yield Buffer.from('ta')
        yield Buffer.from('r')
      })(),
    )
    expect(stub.requests.map(({ method, headers, body }) => [method, headers['content-type'], body])).toEqual([
      ['GET', undefined, ''],
      ['PUT', 'application/x-tar', 'tar'],
    ])
  })
})
