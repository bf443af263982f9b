import { request as httpRequest } from 'node:http'
import type { JobStatusAnswer } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { startTestServer, type TestServer } from '../testing/test-server.ts'

/** A server with a persistent job that runs. */
async function startWithJob() {
  const mags = await startTestServer()
  const id = await mags.submit({ script: 'wait', persistent: true })
  let status: JobStatusAnswer = await mags.status(id)
  while (status.status !== 'running' || status.attach_duration_ms === null) {
    await new Promise((resolve) => setImmediate(resolve))
    status = await mags.status(id)
  }
  const address = await mags.listen()
  const send = (method: string, path: string, options: { body?: string | Buffer<ArrayBuffer>; headers?: Record<string, string> } = {}) =>
    fetch(`${address}/api/v1/mags-jobs/${id}/files${path}`, { method, ...options, headers: { authorization: `Bearer ${mags.token}`, ...options.headers } })
  const [sandbox] = mags.host.sandboxes.values()
  if (sandbox === undefined) throw new Error('no sandbox')
  return { mags, id, address, send, files: sandbox.files, [Symbol.asyncDispose]: () => mags[Symbol.asyncDispose]() }
}

const codeOf = async (answer: Response) => ({ status: answer.status, ...((await answer.json()) as { code: string; error: string }) })

describe('files of a running job', () => {
  it('are written and read back', async () => {
    await using job = await startWithJob()
    const bytes = Buffer.alloc(3_000_000, 'abcdefghi')
    const written = await job.send('PUT', '?path=/data/a%20b&mode=0751', { body: bytes, headers: { 'content-type': 'application/json' } })
    expect(await written.json()).toEqual({ success: true, message: 'File written' })
    expect(job.files.tree.get('/data/a b')).toMatchObject({ mode: 0o751 })
    const read = await job.send('GET', '?path=/data/a%20b')
    expect(read.status).toBe(200)
    expect(Object.fromEntries(read.headers)).toMatchObject({
      'content-type': 'application/octet-stream',
      'content-length': '3000000',
      'x-mags-mode': '0751',
      'last-modified': expect.stringMatching(/ GMT$/) as string,
    })
    expect(Buffer.from(await read.arrayBuffer()).equals(bytes)).toBe(true)
    expect((await job.send('PUT', '?path=/data/empty')).status).toBe(200)
    expect(job.files.tree.get('/data/empty')?.content.length).toBe(0)
    const list = await job.send('GET', '/list?path=/data&limit=1')
    expect(await list.json()).toMatchObject({
      path: '/data',
      truncated: true,
      entries: [{ name: 'a b', type: 'file', size: 3_000_000, mode: '0751', mtime: expect.any(String) as string }],
    })
    expect((await job.send('DELETE', '?path=/data/empty')).status).toBe(200)
    expect(await codeOf(await job.send('DELETE', '?path=/data'))).toMatchObject({ status: 400 })
    expect((await job.send('DELETE', '?path=/data&recursive=true')).status).toBe(200)
    expect(await codeOf(await job.send('GET', '?path=/data/a%20b'))).toMatchObject({ status: 404, code: 'not_found' })
  })

  it('are read in ranges, and asked about by HEAD', async () => {
    await using job = await startWithJob()
    job.files.put('/f', '0123456789')
    const part = await job.send('GET', '?path=/f', { headers: { range: 'bytes=2-4' } })
    expect([part.status, part.headers.get('content-range'), part.headers.get('content-length'), await part.text()]).toEqual([206, 'bytes 2-4/10', '3', '234'])
    const behind = await job.send('GET', '?path=/f', { headers: { range: 'bytes=10-' } })
    expect([behind.status, behind.headers.get('content-range')]).toEqual([416, 'bytes */10'])
    expect(await behind.json()).toMatchObject({ code: 'range_not_satisfiable' })
    const modified = part.headers.get('last-modified') ?? ''
    expect((await job.send('GET', '?path=/f', { headers: { range: 'bytes=2-4', 'if-range': modified } })).status).toBe(206)
    expect((await job.send('GET', '?path=/f', { headers: { range: 'bytes=2-4', 'if-range': '"other"' } })).status).toBe(200)
    const head = await job.send('HEAD', '?path=/f')
    expect([head.status, head.headers.get('content-length'), await head.text()]).toEqual([200, '10', ''])
    expect((await job.send('HEAD', '?path=/none')).status).toBe(404)
  })

  it('read whole when their size is not known before', async () => {
    await using job = await startWithJob()
    job.files.stat = async () => ({ name: 'f', type: 'file', sizeBytes: 0, mode: 0o444, modifiedAt: '2026-01-01T00:00:00.000Z' })
    job.files.put('/proc/made-up', 'as it is read')
    const answer = await job.send('GET', '?path=/proc/made-up')
    expect([answer.headers.get('content-length'), await answer.text()]).toEqual([null, 'as it is read'])
  })

  it('never look whole when they are not', async () => {
    await using job = await startWithJob()
    job.files.put('/f', 'short')
    job.files.stat = async () => ({ name: 'f', type: 'file', sizeBytes: 10, mode: 0o444, modifiedAt: '2026-01-01T00:00:00.000Z' })
    const answer = await job.send('GET', '?path=/f')
    await expect(answer.text()).rejects.toThrow()
  })

  it('have paths that are checked', async () => {
    await using job = await startWithJob()
    for (const path of ['', '?path=', '?path=relative', '?path=/a%00b', `?path=/${'x'.repeat(4095)}`, '?path=/a&unknown=1']) {
      for (const method of ['GET', 'PUT', 'DELETE']) expect(await codeOf(await job.send(method, path))).toMatchObject({ status: 400, code: 'bad_request' })
      expect((await job.send('GET', `/list${path}`)).status).toBe(400)
      expect((await job.send('GET', `/archive${path}`)).status).toBe(400)
    }
    for (const mode of ['9', '10000', '-1', '0x1ff', '']) expect((await job.send('PUT', `?path=/a&mode=${mode}`)).status).toBe(400)
    job.files.put('/d/f', '')
    expect(await codeOf(await job.send('GET', '?path=/d'))).toMatchObject({ status: 400, error: expect.stringContaining('folder') as string })
    expect(await codeOf(await job.send('GET', '/archive?path=/d/f'))).toMatchObject({ status: 400, error: expect.stringContaining('not a folder') as string })
    expect(job.files.tree.size).toBe(1)
  })

  it('are refused over 1 GiB before they are sent', async () => {
    await using job = await startWithJob()
    const { hostname, port } = new URL(job.address)
    const headers = { authorization: `Bearer ${job.mags.token}`, 'content-length': 2 ** 30 + 1 }
    const status = await new Promise<number | undefined>((resolve, reject) => {
      const sent = httpRequest({ hostname, port, method: 'PUT', path: `/api/v1/mags-jobs/${job.id}/files?path=/big`, headers }, (answer) => {
        resolve(answer.statusCode)
        sent.destroy()
      })
      sent.on('error', reject)
      // Ends the wait for the rest.
      sent.write('x')
    })
    expect(status).toBe(413)
    expect(job.files.tree.has('/big')).toBe(false)
  }, 20_000)

  it('belong to jobs that run, of this account', async () => {
    await using job = await startWithJob()
    const over = await job.mags.submit({ script: 'echo' })
    await job.mags.ended(over)
    const call = (mags: TestServer, id: string) => mags.call('GET', `/mags-jobs/${id}/files?path=/a`)
    expect(await call(job.mags, over)).toMatchObject({ status: 400, body: { code: 'job_not_running' } })
    expect(await call(job.mags, 'none')).toMatchObject({ status: 404 })
    expect((await job.mags.server.app.inject(`/api/v1/mags-jobs/${job.id}/files?path=/a`)).statusCode).toBe(401)
  })
})
