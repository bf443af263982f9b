import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { describe, expect, it, onTestFinished } from 'vitest'
import { FakeDirectory } from './testing/fake-directory.ts'
import { openRawUpstream, openTestClient, openTestGateway } from './testing/open-test-gateway.ts'

const upgrade = 'GET /raw HTTP/1.1\r\nHost: web.apps.localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: raw/1\r\n\r\n'
const switched = 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw/1\r\n\r\n'

describe('an upgrade', () => {
  it('carries a WebSocket', async () => {
    const port = await openWebSocketEcho()
    const directory = new FakeDirectory(port)
    directory.hosts.add('127.0.0.1')
    const gateway = await openTestGateway(directory)
    const socket = new WebSocket(`ws://127.0.0.1:${gateway.port}/echo`)
    onTestFinished(() => socket.close())
    await once(socket, 'open')
    for (const text of ['hello', 'ä'.repeat(40), 'x'.repeat(100)]) {
      const heard = once(socket, 'message')
      socket.send(text)
      const [message] = (await heard) as [MessageEvent]
      expect(message.data).toBe(text)
    }
    expect(directory.leases).toBe(1)
    socket.close()
    await once(socket, 'close')
    await directory.released()
    expect(directory.sockets.size).toBe(0)
  })

  it('passes on what follows the heads, both ways, and the ends', async () => {
    const upstream = await openRawUpstream((socket, received) => {
      if (received.endsWith('bye')) socket.end('last')
    })
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openTestGateway(directory)
    const client = await openTestClient(gateway)
    client.send(upgrade)
    await awaitReceived(upstream.received, '\r\n\r\n')
    for (const socket of upstream.sockets) socket.write(`${switched}first`)
    await client.until('first')
    client.send('bye')
    expect(await client.untilClosed()).toBe(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw/1\r\n\r\nfirstlast`)
    expect(upstream.received[0]).toContain('Connection: Upgrade\r\nUpgrade: raw/1\r\n\r\nbye')
    client.socket.end()
    await directory.released()
  })

  it('is cut when the gateway closes, which does not wait for it', async () => {
    const upstream = await openRawUpstream((socket, received) => {
      if (received.endsWith('\r\n\r\n')) socket.write(switched)
    })
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openTestGateway(directory, { limits: { drainMs: 600_000 } })
    const client = await openTestClient(gateway)
    client.send(upgrade)
    await client.until('101 Switching')
    await gateway.close()
    await client.closed
    await directory.released()
  })

  it('that is sent along with the first bytes holds them until the answer', async () => {
    const upstream = await openRawUpstream((socket, received) => {
      if (received.endsWith('\r\n\r\n')) socket.write(switched)
      if (received.endsWith('early')) socket.end('got it')
    })
    const gateway = await openTestGateway(new FakeDirectory(upstream.port))
    const client = await openTestClient(gateway)
    client.send(`${upgrade}early`)
    expect(await client.untilClosed()).toMatch(/\r\n\r\ngot it$/)
  })

  it('that is refused is an answer like any other, and the connection goes on', async () => {
    const upstream = await openRawUpstream((socket) => socket.write('HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno'))
    const gateway = await openTestGateway(new FakeDirectory(upstream.port))
    const client = await openTestClient(gateway)
    client.send(upgrade)
    await client.until('\r\n\r\nno')
    client.send(upgrade)
    expect(await client.until(/no[\s\S]*no$/)).toMatch(/^HTTP\/1\.1 400 [\s\S]*HTTP\/1\.1 400 /)
  })

  it('that is quiet lets its job sleep; bytes of the client wake it first', async () => {
    const upstream = await openRawUpstream((socket, received) => socket.write(received.endsWith('\r\n\r\n') ? switched : `got ${received.slice(-1)}`))
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openTestGateway(directory, { limits: { quietMs: 20 } })
    const client = await openTestClient(gateway)
    client.send(upgrade)
    await client.until('101')
    await directory.released()
    const { promise, resolve } = Promise.withResolvers<void>()
    directory.opening = promise
    client.send('a')
    while (directory.opens < 2) await new Promise((next) => setImmediate(next))
    expect(upstream.received[0]).toMatch(/\r\n\r\n$/)
    resolve()
    await client.until('got a')
    await directory.released()
    for (const socket of upstream.sockets) socket.write('by itself')
    await client.until('by itself')
    expect(directory.opens).toBe(3)
    await directory.released()
    directory.opening = Promise.reject(new Error('no memory'))
    directory.opening.catch(() => {})
    client.send('b')
    await client.untilClosed()
    expect(upstream.received[0]).toMatch(/\r\n\r\na$/)
  })

  it('that is quiet ends with its sandbox, too', async () => {
    const upstream = await openRawUpstream((socket) => socket.write(switched))
    const directory = new FakeDirectory(upstream.port)
    const { promise, resolve } = Promise.withResolvers<void>()
    directory.gone = promise
    const gateway = await openTestGateway(directory, { limits: { quietMs: 20 } })
    const client = await openTestClient(gateway)
    client.send(upgrade)
    await client.until('101')
    await directory.released()
    resolve()
    await client.untilClosed()
    expect(directory.sockets.size).toBe(0)
  })

  it('ends for the client when the sandbox goes', async () => {
    const upstream = await openRawUpstream((socket) => socket.write(switched))
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openTestGateway(directory)
    const client = await openTestClient(gateway)
    client.send(upgrade)
    await client.until('101')
    for (const socket of upstream.sockets) socket.resetAndDestroy()
    await client.untilClosed()
    await directory.released()
  })
})

async function awaitReceived(received: readonly string[], wanted: string): Promise<void> {
  while (!received.some((text) => text.includes(wanted))) await new Promise((resolve) => setImmediate(resolve))
}

/** RFC 6455 with unfragmented text frames of under 126 bytes. */
async function openWebSocketEcho(): Promise<number> {
  const server = createServer()
  const sockets = new Set<Duplex>()
  server.on('upgrade', (request, socket) => {
    sockets.add(socket)
    const accept = createHash('sha1').update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`)
    let held = Buffer.alloc(0)
    socket.on('data', (bytes: Buffer) => {
      held = Buffer.concat([held, bytes])
      while (held.length >= 6 && held.length >= 6 + ((held[1] ?? 0) & 127)) {
        const length = (held[1] ?? 0) & 127
        const mask = held.subarray(2, 6)
        const text = Buffer.from(held.subarray(6, 6 + length).map((byte, i) => byte ^ (mask[i % 4] ?? 0)))
        const opcode = (held[0] ?? 0) & 15
        held = held.subarray(6 + length)
        socket.write(Buffer.concat([Buffer.of(0x80 | opcode, text.length), text]))
        if (opcode === 8) socket.end()
      }
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return (server.address() as AddressInfo).port
}
