import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { connect as connectHttp2 } from 'node:http2'
import { connect } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { HttpGateway } from './open-http-gateway.ts'
import { FakeDirectory } from './testing/fake-directory.ts'
import { makeCertificate } from './testing/make-certificate.ts'
import { openTestGateway, openUpstream } from './testing/open-test-gateway.ts'

const mib = 1024 * 1024
const sizeBytes = 300 * mib
const piece = Buffer.alloc(65_536, 'x')

async function openGateway(version: 'http1.1' | 'http2', port: number): Promise<HttpGateway> {
  return await openTestGateway(new FakeDirectory(port), version === 'http2' ? { tls: await makeCertificate() } : {})
}

describe.each(['http1.1', 'http2'] as const)('300 MB over %s', (version) => {
  const open = async (port: number) => {
    const gateway = await openGateway(version, port)
    const url = `${version === 'http2' ? 'https' : 'http'}://web.apps.localhost:${gateway.port}/`
    return ['-sSk', `--${version}`, '--resolve', `web.apps.localhost:${gateway.port}:127.0.0.1`, url]
  }

  it.each([
    ['with a length', { 'content-length': sizeBytes }],
    ['in chunks', {}],
  ])('come down %s', async (_name, headers) => {
    const upstream = await openUpstream(async (_request, response) => {
      response.writeHead(200, headers)
      await fill(response, sizeBytes)
      response.end()
    })
    const curl = spawn('curl', [...(await open(upstream.port)), '-o', '/dev/null', '-w', '%{size_download}'])
    const out = textOf(curl.stdout)
    await once(curl, 'close')
    expect(await out).toBe(String(sizeBytes))
  })

  it('go up', async () => {
    const upstream = await openUpstream(async (request, response) => {
      let length = 0
      for await (const part of request) length += (part as Buffer).length
      response.end(String(length))
    })
    const curl = spawn('curl', [...(await open(upstream.port)), '-T', '-', '-H', 'Expect:'])
    const out = textOf(curl.stdout)
    createReadStream('/dev/zero', { end: sizeBytes - 1, highWaterMark: 65_536 }).pipe(curl.stdin)
    await once(curl, 'close')
    expect(await out).toBe(String(sizeBytes))
  })
})

/** On the way are the buffers of four sockets in the kernel and what the gateway holds. */
describe('a side that is slower than the other', () => {
  const totalBytes = 128 * mib
  const onTheWayBytes = 40 * mib

  it.each(['http1.1', 'http2'] as const)('holds a sandbox that floods, over %s', async (version) => {
    let sent = () => 0
    const upstream = await openUpstream(async (_request, response) => {
      sent = () => (response.socket?.bytesWritten ?? 0) - (response.socket?.writableLength ?? 0)
      await fill(response, totalBytes)
      response.end()
    })
    const gateway = await openGateway(version, upstream.port)
    const most = await readSlowly(openDownload(version, gateway), totalBytes, (received) => sent() - received)
    expect(most).toBeLessThan(onTheWayBytes)
  })

  it.each(['http1.1', 'http2'] as const)('holds a client that floods, over %s', async (version) => {
    const { promise, resolve } = Promise.withResolvers<IncomingMessage>()
    const upstream = await openUpstream((request) => resolve(request))
    const gateway = await openGateway(version, upstream.port)
    let sent = 0
    const upload = openUpload(version, gateway)
    const filled = fill(upload, totalBytes, () => (sent += piece.length))
    const most = await readSlowly(await promise, totalBytes, (received) => sent - received)
    await filled
    expect(most).toBeLessThan(onTheWayBytes)
  })
})

function openDownload(version: 'http1.1' | 'http2', gateway: HttpGateway): Readable {
  if (version === 'http2') return openStream(gateway, {}, true)
  const socket = connect({ port: gateway.port, host: '127.0.0.1' })
  onTestFinished(() => void socket.destroy())
  socket.write('GET / HTTP/1.1\r\nHost: web.apps.localhost\r\n\r\n')
  return socket
}

function openUpload(version: 'http1.1' | 'http2', gateway: HttpGateway): Writable {
  if (version === 'http2') return openStream(gateway, { ':method': 'POST' }, false)
  const socket = connect({ port: gateway.port, host: '127.0.0.1' })
  onTestFinished(() => void socket.destroy())
  socket.write(`POST / HTTP/1.1\r\nHost: web.apps.localhost\r\nContent-Length: ${2 * sizeBytes}\r\n\r\n`)
  return socket
}

function openStream(gateway: HttpGateway, headers: Record<string, string>, endStream: boolean) {
  const session = connectHttp2(`https://127.0.0.1:${gateway.port}`, { rejectUnauthorized: false, servername: 'web.apps.localhost' })
  onTestFinished(() => session.destroy())
  session.on('error', () => {})
  const stream = session.request({ ':authority': 'web.apps.localhost', ...headers }, { endStream })
  stream.on('error', () => {})
  return stream
}

/** Reads until `total` bytes came, with pauses; returns the most that `onTheWay` said. */
async function readSlowly(source: Readable, total: number, onTheWay: (received: number) => number): Promise<number> {
  let received = 0
  let most = 0
  await new Promise<void>((resolve) => {
    source.on('data', (bytes: Buffer) => {
      received += bytes.length
      most = Math.max(most, onTheWay(received))
      if (received >= total) return resolve()
      source.pause()
      setImmediate(() => setImmediate(() => source.resume()))
    })
  })
  return most
}

/** Writes `total` bytes as fast as they are taken; `onSent` hears of each piece that was. */
async function fill(sink: Writable, total: number, onSent: () => void = () => {}): Promise<void> {
  for (let written = 0; written < total; written += piece.length) {
    if (!sink.write(piece, (error) => (error ? undefined : onSent()))) await once(sink, 'drain')
  }
}

async function textOf(source: Readable): Promise<string> {
  let text = ''
  for await (const part of source) text += part
  return text
}
