import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants, type OutgoingHttpHeaders } from 'node:http2'
import { connect as connectTls } from 'node:tls'
import { promisify } from 'node:util'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { HttpGateway } from './open-http-gateway.ts'
import { FakeDirectory } from './testing/fake-directory.ts'
import { makeCertificate } from './testing/make-certificate.ts'
import { openRawUpstream, openTestGateway, openUpstream } from './testing/open-test-gateway.ts'

const run = promisify(execFile)

async function openSecure(directory: FakeDirectory): Promise<HttpGateway> {
  return await openTestGateway(directory, { tls: await makeCertificate() })
}

async function openSession(gateway: HttpGateway): Promise<ClientHttp2Session> {
  const session = connect(`https://127.0.0.1:${gateway.port}`, { rejectUnauthorized: false, servername: 'web.apps.localhost' })
  session.on('error', () => {})
  onTestFinished(() => session.destroy())
  await once(session, 'connect')
  return session
}

function ask(session: ClientHttp2Session, headers: OutgoingHttpHeaders, endStream = true): ClientHttp2Stream {
  const stream = session.request({ ':authority': 'web.apps.localhost', ...headers }, { endStream })
  stream.on('error', () => {})
  return stream
}

async function answerOf(stream: ClientHttp2Stream) {
  const parts: Buffer[] = []
  let trailers: Record<string, unknown> | undefined
  stream.on('trailers', (fields) => (trailers = { ...fields }))
  const [headers] = await once(stream, 'response')
  for await (const part of stream) parts.push(part as Buffer)
  return { status: headers[':status'] as number, headers, body: Buffer.concat(parts).toString(), trailers }
}

describe('HTTP/2', () => {
  it('becomes HTTP/1.1 for the sandbox', async () => {
    const upstream = await openRawUpstream((socket) =>
      socket.write('HTTP/1.1 200 OK\r\nX-A: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: X-B\r\nX-B: 1\r\nContent-Length: 2\r\n\r\nok'),
    )
    const gateway = await openSecure(new FakeDirectory(upstream.port))
    const session = await openSession(gateway)
    const { status, headers, body } = await answerOf(
      ask(session, { ':path': '/a?b', cookie: ['a=1', 'mags_access=x', 'b=2'], te: 'trailers', 'x-forwarded-for': '1.1.1.1', 'x-c': 'd' }),
    )
    expect({ status, body, a: headers['x-a'], b: headers['x-b'], cookies: headers['set-cookie'] }).toEqual({
      status: 200,
      body: 'ok',
      a: '1',
      b: undefined,
      cookies: ['a=1', 'b=2'],
    })
    expect(upstream.received).toEqual([
      'GET /a?b HTTP/1.1\r\nHost: web.apps.localhost\r\nx-c: d\r\ncookie: a=1; b=2\r\n' +
        `X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: web.apps.localhost\r\nX-Forwarded-Port: ${gateway.port}\r\nConnection: TE\r\nTE: trailers\r\n\r\n`,
    ])
  })

  it('carries bodies and trailers both ways', async () => {
    const upstream = await openUpstream(async (request, response) => {
      let body = ''
      for await (const part of request) body += part
      response.writeHead(200, { trailer: 'x-sum' })
      response.write(`${body} ${request.headers['transfer-encoding']} ${request.headers['content-length']}`)
      response.addTrailers({ 'x-sum': String(request.trailers['x-in']) })
      response.end()
    })
    const gateway = await openSecure(new FakeDirectory(upstream.port))
    const session = await openSession(gateway)
    const stream = session.request({ ':authority': 'web.apps.localhost', ':method': 'POST' }, { waitForTrailers: true })
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-in': 'yes', 'content-length-x': '1' }))
    stream.end('hello')
    expect(await answerOf(stream)).toMatchObject({ status: 200, body: 'hello chunked undefined', trailers: { 'x-sum': 'yes' } })
    const sized = ask(session, { ':method': 'PUT', 'content-length': '3' }, false)
    sized.end('abc')
    expect(await answerOf(sized)).toMatchObject({ status: 200, body: 'abc undefined 3' })
  })

  it('passes events on as they come, and many requests at once', async () => {
    const waiting: (() => void)[] = []
    const upstream = await openUpstream((request, response) => {
      response.write(`data: ${request.url}\n\n`)
      waiting.push(() => response.end('end'))
    })
    const gateway = await openSecure(new FakeDirectory(upstream.port))
    const session = await openSession(gateway)
    const streams = Array.from({ length: 50 }, (_, i) => ask(session, { ':path': `/${i}` }))
    const first = await Promise.all(streams.map(async (stream) => String((await once(stream, 'data'))[0])))
    expect(first).toEqual(streams.map((_, i) => `data: /${i}\n\n`))
    const ends = streams.map((stream) => once(stream, 'end'))
    for (const end of waiting) end()
    await Promise.all(ends)
  })

  it('refuses what HTTP/1.1 could take differently', async () => {
    const upstream = await openRawUpstream(() => {})
    const gateway = await openSecure(new FakeDirectory(upstream.port))
    const session = await openSession(gateway)
    for (const [headers, status] of [
      [{ ':authority': 'other.apps.localhost' }, 421],
      [{ host: 'other.apps.localhost' }, 400],
      [{ ':path': 'nothing' }, 400],
      [{ ':path': '/a b' }, 400],
      [{ ':path': '/a\u00e9' }, 400],
      [{ ':method': 'TRACE' }, 405],
      [{ content_length: '3' }, 400],
      [{ expect: 'nothing' }, 417],
    ] as const) {
      const stream = ask(session, headers)
      const outcome = new Promise((resolve) => {
        stream.once('response', (answer) => resolve(answer[':status']))
        stream.once('close', () => resolve('reset'))
      })
      expect([status, 'reset']).toContain(await outcome)
    }
    expect(upstream.received.join('')).toBe('')
  })

  it('gives the job back when a download is reset', async () => {
    const upstream = await openRawUpstream((socket) => socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n'))
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openSecure(directory)
    const download = ask(await openSession(gateway), {})
    await once(download, 'data')
    download.close(8)
    await directory.released()
    expect(directory.sockets.size).toBe(0)
  })

  it.each([8, 0, 'its connection'] as const)('shows the sandbox no end of an upload that breaks off with %s', async (code) => {
    const upstream = await openRawUpstream(() => {})
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openSecure(directory)
    const socket = connectTls({ port: gateway.port, host: '127.0.0.1', servername: 'web.apps.localhost', ALPNProtocols: ['h2'], rejectUnauthorized: false })
    onTestFinished(() => void socket.destroy())
    await once(socket, 'secureConnect')
    socket.resume()
    const authority = Buffer.from('web.apps.localhost')
    // RFC 7541: POST, https, / from the static table, then :authority as a literal.
    const headers = Buffer.concat([Buffer.of(0x83, 0x87, 0x84, 0x01, authority.length), authority])
    socket.write(
      Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(4, 0, 0), frame(1, 4, 1, headers), frame(0, 0, 1, Buffer.from('part of it'))]),
    )
    while (!upstream.received.join('').includes('part of it')) await new Promise((next) => setImmediate(next))
    const closed = [...upstream.sockets].map((upstreamSocket) => once(upstreamSocket, 'close'))
    if (code === 'its connection') socket.destroy()
    else socket.write(frame(3, 0, 1, Buffer.of(0, 0, 0, code)))
    await Promise.all(closed)
    await directory.released()
    expect(upstream.received.join('')).toMatch(/part of it\r\n$/)
  })

  it.each(['Content-Length: 100\r\n\r\nhalf', 'Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n'])(
    'resets a stream whose answer breaks off: %j',
    async (rest) => {
      const upstream = await openRawUpstream((socket) => socket.end(`HTTP/1.1 200 OK\r\n${rest}`))
      const gateway = await openSecure(new FakeDirectory(upstream.port))
      const stream = ask(await openSession(gateway), {})
      stream.resume()
      await new Promise((resolve) => stream.once('close', resolve))
      expect(stream.rstCode).toBe(2)
      const to = ['-sk', '--http2', '--resolve', `web.apps.localhost:${gateway.port}:127.0.0.1`, `https://web.apps.localhost:${gateway.port}/`]
      await expect(run('curl', to)).rejects.toMatchObject({ code: 92 })
    },
  )

  it('ends an upload that was answered before its end', async () => {
    const upstream = await openRawUpstream((socket) => socket.write('HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno'))
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openSecure(directory)
    const session = await openSession(gateway)
    const stream = ask(session, { ':method': 'POST' }, false)
    stream.write('abc')
    expect(await answerOf(stream)).toMatchObject({ status: 413, body: 'no' })
    await directory.released()
  })

  it('has a bound for requests under way, whatever connections they are on', async () => {
    const upstream = await openRawUpstream(() => {})
    const gateway = await openTestGateway(new FakeDirectory(upstream.port), { tls: await makeCertificate(), limits: { maxStreamsPerAddress: 2 } })
    const [one, other] = [await openSession(gateway), await openSession(gateway)]
    const [first] = [ask(one, {}), ask(one, {})]
    await expect.poll(() => upstream.sockets.size, { timeout: 10_000 }).toBe(2)
    const refused = ask(other, {})
    await expect(once(refused, 'close')).rejects.toMatchObject({ code: 'ERR_HTTP2_STREAM_ERROR' })
    expect(refused.rstCode).toBe(constants.NGHTTP2_REFUSED_STREAM)
    first?.close(constants.NGHTTP2_CANCEL)
    await expect.poll(() => upstream.sockets.size, { timeout: 10_000 }).toBe(1)
    ask(other, {})
    await expect.poll(() => upstream.sockets.size, { timeout: 10_000 }).toBe(2)
  })

  it('passes no trailer on that HTTP/2 forbids', async () => {
    const upstream = await openRawUpstream((socket) =>
      socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nHTTP2-Settings: x\r\nUpgrade: h2c\r\nTE: x\r\nX-Sum: 1\r\n\r\n'),
    )
    const gateway = await openSecure(new FakeDirectory(upstream.port))
    const session = await openSession(gateway)
    expect(await answerOf(ask(session, {}))).toMatchObject({ status: 200, body: 'ok', trailers: { 'x-sum': '1' } })
  })

  it('is spoken with curl, as is HTTP/1.1 over TLS', async () => {
    const upstream = await openUpstream((request, response) => {
      request.resume()
      request.on('end', () => response.end(`proto ${request.headers['x-forwarded-proto']}`))
    })
    const gateway = await openSecure(new FakeDirectory(upstream.port))
    const to = ['-sk', '--resolve', `web.apps.localhost:${gateway.port}:127.0.0.1`, '-w', ' %{http_version}', `https://web.apps.localhost:${gateway.port}/`]
    expect((await run('curl', ['--http2', ...to])).stdout).toBe('proto https 2')
    expect((await run('curl', ['--http2', '-d', 'x'.repeat(100_000), ...to])).stdout).toBe('proto https 2')
    expect((await run('curl', ['--http1.1', ...to])).stdout).toBe('proto https 1.1')
    expect((await run('curl', ['--http1.1', '-H', 'Expect: 100-continue', '-d', 'x', ...to])).stdout).toBe('proto https 1.1')
  })

  it('refuses a Host that is not the name of the TLS connection', async () => {
    const upstream = await openRawUpstream(() => {})
    const gateway = await openSecure(new FakeDirectory(upstream.port))
    const socket = connectTls({ port: gateway.port, host: '127.0.0.1', servername: 'other.apps.localhost', rejectUnauthorized: false })
    onTestFinished(() => void socket.destroy())
    await once(socket, 'secureConnect')
    socket.write('GET / HTTP/1.1\r\nHost: web.apps.localhost\r\n\r\n')
    let answer = ''
    for await (const part of socket) answer += part
    expect(answer).toMatch(/^HTTP\/1\.1 421 /)
  })
})

/** RFC 9113 4.1. */
function frame(type: number, flags: number, stream: number, payload = Buffer.alloc(0)): Buffer {
  return Buffer.concat([Buffer.of(0, payload.length >> 8, payload.length & 255, type, flags, 0, 0, 0, stream), payload])
}
