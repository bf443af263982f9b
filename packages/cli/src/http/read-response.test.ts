import { describe, expect, it } from 'vitest'
import { readResponse } from './read-response.ts'

async function* parts(text: string, size: number) {
  const bytes = Buffer.from(text, 'latin1')
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

async function read(text: string, size = 5) {
  const response = await readResponse(parts(text, size))
  const body = Buffer.concat(await Array.fromAsync(response.body)).toString('latin1')
  return { status: response.status, type: response.header('Content-Type'), body }
}

describe('readResponse', () => {
  it('reads every framing, however the bytes are cut', async () => {
    const counted = 'HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 11\r\n\r\nhello world'
    const chunked = 'HTTP/1.1 200 OK\r\ncontent-type:a/b\r\ntransfer-encoding: chunked\r\n\r\n6\r\nhello \r\n5;x=y\r\nworld\r\n0\r\nTrailer: x\r\n\r\n'
    const untilEnd = 'HTTP/1.0 200 OK\nContent-Type: a/b\n\nhello world'
    for (const text of [counted, chunked, untilEnd]) {
      for (let size = 1; size < 40; size += 3) expect(await read(text, size)).toEqual({ status: 200, type: 'a/b', body: 'hello world' })
    }
  })

  it('skips interim answers and knows which have no body', async () => {
    expect(await read('HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n')).toMatchObject({ status: 204, body: '' })
  })

  it('refuses an answer that ends too early', async () => {
    for (const text of [
      '',
      'HTTP/1.1 200',
      'HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab',
      'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n',
    ]) {
      await expect(read(text)).rejects.toMatchObject({ code: 'ECONNRESET' })
    }
  })

  it('refuses what is not HTTP', async () => {
    for (const text of [
      'SSH-2.0-OpenSSH\r\n',
      'HTTP/1.1 200 OK\r\nno colon\r\n\r\n',
      'HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n',
      'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n',
      `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(70_000)}`,
    ]) {
      await expect(read(text, 1000)).rejects.toMatchObject({ code: 'EPROTO' })
    }
  })
})
