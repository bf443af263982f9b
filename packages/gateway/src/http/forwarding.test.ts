import { execFile } from 'node:child_process'
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { FakeDirectory } from './testing/fake-directory.ts'
import { openRawUpstream, openTestClient, openTestGateway, openUpstream } from './testing/open-test-gateway.ts'

const run = promisify(execFile)
const host = 'Host: web.apps.localhost\r\n'

/** Answers with what it got. */
async function echo(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const parts: Buffer[] = []
  for await (const part of request) parts.push(part as Buffer)
  const { method, url, rawHeaders, rawTrailers } = request
  response.end(JSON.stringify({ method, url, rawHeaders, rawTrailers, body: Buffer.concat(parts).toString() }))
}

function bodyOf(answer: string): string {
  return answer.slice(answer.indexOf('\r\n\r\n') + 4)
}

describe('requests', () => {
  it('keep what is theirs and lose what is for one connection', async () => {
    const upstream = await openRawUpstream((socket) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'))
    const gateway = await openTestGateway(new FakeDirectory(upstream.port))
    const client = await openTestClient(gateway)
    client.send(
      'GET /a?b=%20c HTTP/1.1\r\nHost: WEB.apps.localhost.:8443\r\nx-MiXed: 1\r\nX-Mixed: 2\r\nConnection: X-Private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: 5\r\nTE: trailers, deflate\r\n' +
        'Proxy-Connection: x\r\nForwarded: for=1.1.1.1\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX_Forwarded_For: 2.2.2.2\r\nX-Forwarded-User: root\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n',
    )
    await client.until('ok')
    expect(upstream.received).toEqual([
      'GET /a?b=%20c HTTP/1.1\r\nHost: WEB.apps.localhost.:8443\r\nx-MiXed: 1\r\nX-Mixed: 2\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: WEB.apps.localhost.:8443\r\nX-Forwarded-Port: 8443\r\n' +
        'Connection: TE\r\nTE: trailers\r\n\r\n',
    ])
  })

  it('keep what a trusted proxy says of where they come from', async () => {
    const upstream = await openUpstream(echo)
    const gateway = await openTestGateway(new FakeDirectory(upstream.port), { trustedProxies: ['127.0.0.0/8'] })
    const client = await openTestClient(gateway)
    client.send(
      `GET / HTTP/1.1\r\n${host}X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example.org\r\nConnection: close\r\n\r\n`,
    )
    const { rawHeaders } = JSON.parse(bodyOf(await client.untilClosed()).replace(/^[0-9a-f]+\r\n|\r\n0\r\n\r\n$/g, ''))
    expect(rawHeaders).toEqual([
      ...['Host', 'web.apps.localhost', 'X-Forwarded-For', '1.1.1.1, 127.0.0.1', 'X-Forwarded-Proto', 'https'],
      ...['X-Forwarded-Host', 'shop.example.org', 'X-Forwarded-Port', '443'],
    ])
  })

  it('mean the same however they are cut', async () => {
    const upstream = await openUpstream(echo)
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openTestGateway(directory)
    const requests = [
      `GET /x HTTP/1.1\r\n${host}A: b\r\nConnection: close\r\n\r\n`,
      `POST /x HTTP/1.1\r\n${host}Content-Length: 11\r\nConnection: close\r\n\r\nhello world`,
      `POST /x HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\nConnection: close\r\n\r\n5\r\nhello\r\nA\r\n0123456789\r\n0\r\nX-Sum: 9\r\n\r\n`,
    ].map((text) => Buffer.from(text, 'latin1'))
    const got = async (pieces: readonly Buffer[]) => {
      const client = await openTestClient(gateway)
      await client.sendPieces(pieces)
      const answer = await client.untilClosed()
      return { head: answer.slice(0, 15), body: bodyOf(answer) }
    }
    for (const request of requests) {
      const whole = await got([request])
      expect(whole.head).toBe('HTTP/1.1 200 OK')
      for (let at = 1; at < request.length; at++) expect(await got([request.subarray(0, at), request.subarray(at)])).toEqual(whole)
      expect(await got(Array.from(request, (byte) => Buffer.of(byte)))).toEqual(whole)
      for (let seed = 1; seed <= 40; seed++) expect(await got(cut(request, seed))).toEqual(whole)
    }
  })

  it('follow each other on one connection, and ones sent ahead are answered in order', async () => {
    const upstream = await openUpstream((request, response) => response.end(`<${request.url}>`))
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openTestGateway(directory)
    const client = await openTestClient(gateway)
    let all = ''
    for (let i = 0; i < 50; i++) all += `GET /${i} HTTP/1.1\r\n${host}\r\n`
    client.send(all)
    const answer = await client.until('</49>')
    expect(answer.match(/<\/\d+>/g)).toEqual(Array.from({ length: 50 }, (_, i) => `</${i}>`))
    expect({ connects: directory.connects, opens: directory.opens }).toEqual({ connects: 1, opens: 1 })
  })

  it('of HTTP/1.0 are answered without chunks, and the connection ends', async () => {
    const upstream = await openUpstream((_request, response) => {
      response.write('a')
      response.end('b')
    })
    const gateway = await openTestGateway(new FakeDirectory(upstream.port))
    const client = await openTestClient(gateway)
    client.send(`GET / HTTP/1.0\r\n${host}\r\n`)
    const answer = await client.untilClosed()
    expect(answer).not.toMatch(/transfer-encoding/i)
    expect(answer).toContain('Connection: close')
    expect(bodyOf(answer)).toBe('ab')
  })

  it('with Expect: 100-continue hear the server in the sandbox', async () => {
    const upstream = await openUpstream(echo)
    const gateway = await openTestGateway(new FakeDirectory(upstream.port))
    const args = ['-sv', '-H', host.trim(), '-H', 'Expect: 100-continue', '--expect100-timeout', '20', '-d', 'hello', `http://127.0.0.1:${gateway.port}/`]
    const { stdout, stderr } = await run('curl', args)
    expect(stderr).toContain('< HTTP/1.1 100 Continue')
    expect(JSON.parse(stdout)).toMatchObject({ body: 'hello' })
  })

  it('that were answered before their body was sent end the connection', async () => {
    const upstream = await openRawUpstream((socket) => socket.write('HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno'))
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openTestGateway(directory)
    const client = await openTestClient(gateway)
    client.send(`POST / HTTP/1.1\r\n${host}Content-Length: 1000\r\n\r\nabc`)
    expect(bodyOf(await client.untilClosed())).toBe('no')
    await directory.released()
    expect(directory.sockets.size).toBe(0)
  })
})

describe('answers', () => {
  it('to HEAD and with 304 say how long the body would be', async () => {
    const upstream = await openRawUpstream((socket, received) => {
      if (received.endsWith('\r\n\r\n'))
        socket.write(received.startsWith('HEAD') ? 'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n' : 'HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n')
    })
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openTestGateway(directory)
    const client = await openTestClient(gateway)
    client.send(`HEAD / HTTP/1.1\r\n${host}\r\n`)
    expect(await client.until('\r\n\r\n')).toBe('HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n')
    client.send(`GET / HTTP/1.1\r\n${host}\r\n`)
    expect(await client.until('304 Not Modified\r\nContent-Length: 7\r\n\r\n')).toContain('304 Not Modified\r\nContent-Length: 7\r\n\r\n')
    expect(directory.connects).toBe(2)
  })

  it('come piece by piece, with trailers', async () => {
    let go: (() => void) | undefined
    const upstream = await openUpstream((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream', trailer: 'X-Sum' })
      response.write('data: 1\n\n')
      go = () => {
        response.addTrailers({ 'X-Sum': '2' })
        response.end('data: 2\n\n')
      }
    })
    const gateway = await openTestGateway(new FakeDirectory(upstream.port))
    const client = await openTestClient(gateway)
    client.send(`GET / HTTP/1.1\r\n${host}TE: trailers\r\n\r\n`)
    expect(await client.until('data: 1')).not.toContain('data: 2')
    go?.()
    expect(await client.until('X-Sum: 2\r\n\r\n')).toContain('9\r\ndata: 2\n\n\r\n0\r\nX-Sum: 2\r\n\r\n')
  })

  it('that end with the connection become chunks', async () => {
    const upstream = await openRawUpstream((socket) => socket.end('HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it'))
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openTestGateway(directory)
    const client = await openTestClient(gateway)
    client.send(`GET / HTTP/1.1\r\n${host}\r\n`)
    expect(bodyOf(await client.until('0\r\n\r\n'))).toBe('9\r\nall of it\r\n0\r\n\r\n')
    await directory.released()
    expect(directory.sockets.size).toBe(0)
  })

  it('are retried on a fresh connection when a kept one turns out to be closed', async () => {
    const upstream = await openRawUpstream((socket, received, connection) => {
      const requests = received.split('\r\n\r\n').length - 1
      if (connection === 0 && requests === 2) socket.destroy()
      else socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    })
    const gateway = await openTestGateway(new FakeDirectory(upstream.port), { limits: { lingerMs: 5000 } })
    const client = await openTestClient(gateway)
    client.send(`GET /1 HTTP/1.1\r\n${host}\r\n`)
    await client.until('ok')
    client.send(`GET /2 HTTP/1.1\r\n${host}Connection: close\r\n\r\n`)
    expect((await client.untilClosed()).match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 200'])
    expect(upstream.received.map((text) => text.match(/^GET \S+/gm))).toEqual([['GET /1', 'GET /2'], ['GET /2']])
  })

  it('are not retried when the request may have done something', async () => {
    const upstream = await openRawUpstream((socket, received, connection) => {
      const requests = received.split('\r\n\r\n').length - 1
      if (connection === 0 && requests === 2) socket.destroy()
      else socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    })
    const gateway = await openTestGateway(new FakeDirectory(upstream.port), { limits: { lingerMs: 5000 } })
    const client = await openTestClient(gateway)
    client.send(`GET /1 HTTP/1.1\r\n${host}\r\n`)
    await client.until('ok')
    client.send(`POST /2 HTTP/1.1\r\n${host}Connection: close\r\n\r\n`)
    expect((await client.untilClosed()).match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 502'])
    expect(upstream.received).toHaveLength(1)
  })
})

describe('what a hostile sandbox sends', () => {
  const bad = [
    ['no HTTP', 'SSH-2.0-OpenSSH\r\n\r\n'],
    ['a status of two digits', 'HTTP/1.1 20 OK\r\n\r\n'],
    ['a status nobody has', 'HTTP/1.1 999 OK\r\n\r\n'],
    ['lines that end with LF', 'HTTP/1.1 200 OK\nContent-Length: 2\n\nok'],
    ['both framings', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok'],
    ['two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok'],
    ['a length that is none', 'HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok'],
    ['an encoding nobody asked for', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nok'],
    ['chunks in HTTP/1.0', 'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['a folded line', 'HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n'],
    ['a blank before the colon', 'HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n'],
    ['a control character', 'HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 0\r\n\r\n'],
    ['101 nobody asked for', 'HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n'],
    ['a head without an end', `HTTP/1.1 200 OK\r\nX: ${'x'.repeat(70_000)}`],
    ['nothing, and ends', ''],
  ] as const

  it.each(bad)('%s is a 502', async (_name, bytes) => {
    const upstream = await openRawUpstream((socket) => (bytes === '' ? socket.destroy() : socket.write(Buffer.from(bytes, 'latin1'))))
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openTestGateway(directory)
    const client = await openTestClient(gateway)
    client.send(`GET / HTTP/1.1\r\n${host}Connection: close\r\n\r\n`)
    const answer = await client.untilClosed()
    expect(answer).toMatch(/^HTTP\/1\.1 502 /)
    expect(JSON.parse(bodyOf(answer))).toMatchObject({ code: 'sandbox_failed' })
    await directory.released()
    expect(directory.sockets.size).toBe(0)
  })

  it('an answer with more than it promised does not become the next one', async () => {
    const upstream = await openRawUpstream((socket, _received, connection) =>
      socket.write(
        connection === 0
          ? 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil'
          : 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood',
      ),
    )
    const gateway = await openTestGateway(new FakeDirectory(upstream.port))
    const client = await openTestClient(gateway)
    client.send(`GET / HTTP/1.1\r\n${host}\r\n`)
    await client.until('ok')
    client.send(`GET / HTTP/1.1\r\n${host}Connection: close\r\n\r\n`)
    const answer = await client.untilClosed()
    expect(answer).toMatch(/good$/)
    expect(answer).not.toContain('evil')
  })

  it.each([
    ['a length that is not reached', 'Content-Length: 100\r\n\r\nhalf'],
    ['chunks without a last one', 'Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n'],
  ])('%s is a cut, never a clean end', async (_name, rest) => {
    const upstream = await openRawUpstream((socket) => socket.end(`HTTP/1.1 200 OK\r\n${rest}`))
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openTestGateway(directory)
    await expect(run('curl', ['-sS', '-H', host.trim(), `http://127.0.0.1:${gateway.port}/`])).rejects.toMatchObject({ code: 18 })
    await directory.released()
  })

  it('a bad chunk is a cut', async () => {
    const upstream = await openRawUpstream((socket) => socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n'))
    const gateway = await openTestGateway(new FakeDirectory(upstream.port))
    const client = await openTestClient(gateway)
    client.send(`GET / HTTP/1.1\r\n${host}\r\n`)
    expect(await client.untilClosed()).not.toContain('0\r\n\r\n')
  })

  it('interim answers without end are a 502', async () => {
    const upstream = await openRawUpstream((socket) => socket.write('HTTP/1.1 102 Processing\r\n\r\n'.repeat(100)))
    const gateway = await openTestGateway(new FakeDirectory(upstream.port))
    const client = await openTestClient(gateway)
    client.send(`GET / HTTP/1.1\r\n${host}Connection: close\r\n\r\n`)
    expect(await client.untilClosed()).toMatch(/^HTTP\/1\.1 502 /)
  })

  it('a machine that is gone without a word is a 502, or a cut', async () => {
    const upstream = await openRawUpstream(
      (socket, received) => received.startsWith('GET /half') && socket.write('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf'),
    )
    const directory = new FakeDirectory(upstream.port)
    const { promise, resolve } = Promise.withResolvers<void>()
    directory.gone = promise
    const gateway = await openTestGateway(directory)
    const [none, half] = [await openTestClient(gateway), await openTestClient(gateway)]
    none.send(`GET / HTTP/1.1\r\n${host}Connection: close\r\n\r\n`)
    half.send(`GET /half HTTP/1.1\r\n${host}\r\n`)
    await half.until('half')
    while (directory.sockets.size < 2) await new Promise((next) => setImmediate(next))
    resolve()
    expect(await none.untilClosed()).toMatch(/^HTTP\/1\.1 502 [\s\S]*ended before it answered/)
    expect(await half.untilClosed()).toMatch(/half$/)
    expect(directory.sockets.size).toBe(0)
  })

  it('an end of a body by reset is a reset for an old client, too', async () => {
    const upstream = await openRawUpstream((socket) => socket.write('HTTP/1.0 200 OK\r\n\r\nhalf'))
    const gateway = await openTestGateway(new FakeDirectory(upstream.port))
    const client = await openTestClient(gateway)
    client.send(`GET / HTTP/1.0\r\n${host}\r\n`)
    await client.until('half')
    for (const socket of upstream.sockets) socket.resetAndDestroy()
    expect(await client.closed).toBe('reset')
  })
})

describe('a client that goes away', () => {
  it('closes the connection to the sandbox and gives the job back', async () => {
    const upstream = await openRawUpstream((socket) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf'))
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openTestGateway(directory)
    const client = await openTestClient(gateway)
    client.send(`GET / HTTP/1.1\r\n${host}\r\n`)
    await client.until('half')
    const [socket] = upstream.sockets
    const gone = socket === undefined ? Promise.reject(new Error('no connection')) : once(socket, 'close')
    client.socket.destroy()
    await gone
    await directory.released()
  })

  it('while it waits for an answer, too', async () => {
    const upstream = await openRawUpstream(() => client.socket.destroy())
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openTestGateway(directory)
    const client = await openTestClient(gateway)
    client.send(`GET / HTTP/1.1\r\n${host}\r\n`)
    await client.untilClosed()
    await directory.released()
    expect(directory.sockets.size).toBe(0)
  })
})

/** Cuts at places drawn from `seed`. */
function cut(bytes: Buffer, seed: number): Buffer[] {
  const pieces: Buffer[] = []
  let state = seed
  for (let at = 0; at < bytes.length; ) {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
    const length = 1 + (state % 17)
    pieces.push(bytes.subarray(at, at + length))
    at += length
  }
  return pieces
}
