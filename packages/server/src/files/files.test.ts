import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import type { FileAnswer, ListUploadsAnswer, UploadAnswer } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { startTestServer, type TestServer } from '../testing/test-server.ts'
import { reduceFileName } from './file-name.ts'

const megabyte = 1024 * 1024
const dayMs = 24 * 3600 * 1000

async function send(mags: TestServer, address: string, form: FormData): Promise<{ status: number; body: UploadAnswer & { code?: string; error?: string } }> {
  const answer = await fetch(`${address}/api/v1/mags-files`, { method: 'POST', body: form, headers: { authorization: `Bearer ${mags.token}` } })
  return { status: answer.status, body: (await answer.json()) as UploadAnswer }
}

function formOf(name: string, content: string | Uint8Array<ArrayBuffer>, part = 'file'): FormData {
  const form = new FormData()
  form.append(part, new Blob([content]), name)
  return form
}

const stored = (mags: TestServer) => readdirSync(join(mags.directory, 'files'))

describe('names of uploaded files', () => {
  it.each([
    ['data.csv', 'data.csv'],
    ['/etc/passwd', 'passwd'],
    ['../../x', 'x'],
    ['C:\\Users\\me\\data.csv', 'data.csv'],
    ['a\nb é 🙂', 'a\nb é 🙂'],
    ['...', '...'],
    ['x'.repeat(255), 'x'.repeat(255)],
  ])('%j becomes %j', (sent, name) => expect(reduceFileName(sent)).toBe(name))

  it.each([undefined, '', 'a/', 'a\\', '.', '..', 'a/..', 'a\0b', 'é'.repeat(128)])('%j is refused', (sent) => {
    expect(() => reduceFileName(sent)).toThrow(/^file: /)
  })
})

describe('uploaded files', () => {
  it('are stored, listed, given back and deleted', async () => {
    await using mags = await startTestServer()
    const address = await mags.listen()
    const bytes = new Uint8Array(3 * megabyte).map((_, index) => (index * 7) % 251)
    const first = await send(mags, address, formOf('dir/über x.bin', bytes))
    expect(first).toMatchObject({ status: 201, body: { file_name: 'über x.bin', size: bytes.length } })
    const second = await send(mags, address, formOf('empty', ''))
    expect(second).toMatchObject({ status: 201, body: { size: 0 } })
    const id = first.body.file_id
    expect(stored(mags).sort()).toEqual([id, second.body.file_id].sort())
    expect(statSync(join(mags.directory, 'files', id)).mode & 0o777).toBe(0o600)

    const { body: list } = (await mags.call('GET', '/mags-files?page_size=1')) as unknown as { body: ListUploadsAnswer }
    expect(list).toMatchObject({ total: 2, page: 1, page_size: 1, files: [{ file_id: second.body.file_id }] })
    const one = (await mags.call('GET', `/mags-files/${id}`)).body as unknown as FileAnswer
    expect(one).toMatchObject({ file_id: id, size: bytes.length, last_used_at: one.created_at })
    const content = await fetch(`${address}/api/v1/mags-files/${id}/content`, { headers: { authorization: `Bearer ${mags.token}` } })
    expect(Buffer.from(await content.arrayBuffer()).equals(Buffer.from(bytes))).toBe(true)
    expect(content.headers.get('content-disposition')).toBe("attachment; filename*=UTF-8''%C3%BCber%20x.bin")

    expect((await mags.call('DELETE', `/mags-files/${id}`)).status).toBe(200)
    for (const [method, path] of [
      ['GET', ''],
      ['GET', '/content'],
      ['DELETE', ''],
    ] as const)
      expect(await mags.call(method, `/mags-files/${id}${path}`)).toMatchObject({ status: 404, body: { code: 'not_found' } })
    expect(stored(mags)).toEqual([second.body.file_id])
  })

  it('are refused when the part is missing, unknown, nameless or not alone, and nothing is left', async () => {
    await using mags = await startTestServer()
    const address = await mags.listen()
    const two = formOf('a', 'a')
    two.append('file', new Blob(['b']), 'b')
    const withField = formOf('a', 'a')
    withField.append('note', 'x')
    const asField = new FormData()
    asField.append('file', 'text')
    const cases: readonly (readonly [FormData, RegExp])[] = [
      [new FormData(), /^file: is required/],
      [asField, /^file: needs a file name/],
      [formOf('..', 'x'), /^file: \.\. cannot/],
      [formOf('a', 'x'.repeat(megabyte), 'upload'), /^unknown part "upload"/],
      [withField, /^unknown part "note"/],
      [two, /^file: one file/],
    ]
    for (const [form, words] of cases)
      expect(await send(mags, address, form)).toMatchObject({ status: 400, body: { code: 'bad_request', error: expect.stringMatching(words) as string } })
    expect(await mags.call('POST', '/mags-files', { file: 'x' })).toMatchObject({
      status: 400,
      body: { error: expect.stringMatching(/^file: is required/) as string },
    })
    expect(await mags.call('POST', '/mags-files')).toMatchObject({ status: 400 })
    expect(stored(mags)).toEqual([])
    expect((await mags.call('GET', '/mags-files')).body).toMatchObject({ total: 0 })
  })

  it('may have 100 MB and not one byte more', async () => {
    await using mags = await startTestServer()
    const address = await mags.listen()
    const most = new Uint8Array(100 * megabyte)
    const { body } = await send(mags, address, formOf('most', most))
    expect(body.size).toBe(most.length)
    expect(await send(mags, address, formOf('more', new Uint8Array(100 * megabyte + 1)))).toMatchObject({
      status: 413,
      body: { code: 'too_large', error: 'file: at most 100 MB' },
    })
    expect(await send(mags, address, formOf('far more', new Uint8Array(130 * megabyte)))).toMatchObject({ status: 413 })
    expect(stored(mags)).toEqual([body.file_id])
  })

  it('leave nothing when the client goes away in the middle', async () => {
    await using mags = await startTestServer()
    const { hostname, port } = new URL(await mags.listen())
    const head = '--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    const socket = connect(Number(port), hostname)
    const request = `POST /api/v1/mags-files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${mags.token}\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000000\r\n\r\n`
    socket.write(`${request}${head}${'y'.repeat(100_000)}`)
    while (stored(mags).length === 0) await new Promise((resolve) => setImmediate(resolve))
    socket.destroy()
    while (stored(mags).length > 0) await new Promise((resolve) => setImmediate(resolve))
    expect((await mags.call('GET', '/mags-files')).body).toMatchObject({ total: 0 })
  })

  it('are cut off at the end of a multipart body that stops early', async () => {
    await using mags = await startTestServer()
    const payload = '--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf'
    const headers = { authorization: `Bearer ${mags.token}`, 'content-type': 'multipart/form-data; boundary=x' }
    const answer = await mags.server.app.inject({ method: 'POST', url: '/api/v1/mags-files', headers, payload })
    expect(answer.statusCode).toBe(400)
    expect(stored(mags)).toEqual([])
  })

  it('go into a job that names them, and only into one of their account', async () => {
    await using mags = await startTestServer()
    const address = await mags.listen()
    const ids: string[] = []
    for (const [name, text] of [
      ['a.txt', 'A'],
      ['b.txt', 'B'],
      ['a.txt', 'other'],
    ] as const)
      ids.push((await send(mags, address, formOf(name, text))).body.file_id)
    const [a = '', b = '', again = ''] = ids
    const id = await mags.submit({ script: 'wait', persistent: true, file_ids: [a, b] })
    while (mags.host.sandboxes.size === 0 || (await mags.status(id)).status !== 'running') await new Promise((resolve) => setImmediate(resolve))
    const read = async (path: string) => (await mags.call('GET', `/mags-jobs/${id}/files?path=${path}`)).body
    while ((await read('/root/b.txt')).text === undefined) await new Promise((resolve) => setImmediate(resolve))
    expect([await read('/root/a.txt'), await read('/root/b.txt')]).toEqual([{ text: 'A' }, { text: 'B' }])
    const refused = async (file_ids: string[]) => await mags.call('POST', '/mags-jobs', { script: 'echo', file_ids })
    expect(await refused([a, again])).toMatchObject({ status: 400, body: { error: expect.stringMatching(/^file_ids: two .*"a\.txt"/) as string } })
    expect(await refused([a, 'nope'])).toMatchObject({ status: 404, body: { error: expect.stringContaining('"nope"') as string } })
  })

  it('go after 30 days without use, together with what belongs to nobody', async () => {
    let now = Date.parse('2026-01-01T00:00:00Z')
    await using mags = await startTestServer({ deps: { clock: () => now } })
    const address = await mags.listen()
    const old = (await send(mags, address, formOf('old', 'x'))).body.file_id
    const used = (await send(mags, address, formOf('used', 'x'))).body.file_id
    now += 20 * dayMs
    await mags.ended(await mags.submit({ script: 'echo', file_ids: [used] }))
    await mags.server.close()
    const folder = join(mags.directory, 'files')
    for (const name of ['stray', 'stray2.part']) writeFileSync(join(folder, name), 'left by a crash')
    now += 10 * dayMs + 1
    await using next = await startTestServer({ deps: { ...mags.deps, clock: () => now } })
    while (existsSync(join(folder, old)) || existsSync(join(folder, 'stray2.part'))) await new Promise((resolve) => setImmediate(resolve))
    expect(readdirSync(folder)).toEqual([used])
    expect((await next.call('GET', '/mags-files')).body).toMatchObject({ total: 1, files: [{ file_id: used }] })
  })
})
