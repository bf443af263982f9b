import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it } from 'vitest'
import { loopbackTransport } from './loopback-transport.ts'

async function startServer(answer: (request: IncomingMessage, response: ServerResponse) => void) {
  const server = createServer(answer).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/x`)
  return {
    send: (body: string | AsyncIterable<Uint8Array>, headers: Record<string, string> = {}, signal = new AbortController().signal) =>
      loopbackTransport({ method: 'PUT', url, headers, body, signal }),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

/** Says what came in. */
function echo(request: IncomingMessage, response: ServerResponse) {
  const parts: Buffer[] = []
  request.on('data', (part: Buffer) => parts.push(part))
  request.on('end', () =>
    response.end(`${request.headers['transfer-encoding'] ?? request.headers['content-length']} ${Buffer.concat(parts).toString('latin1')}`),
  )
}

async function* parts(...texts: string[]) {
  for (const text of texts) yield Buffer.from(text, 'latin1')
}

const textOf = async (body: AsyncIterable<Uint8Array>) => Buffer.concat(await Array.fromAsync(body)).toString('latin1')

describe('loopbackTransport', () => {
  it('sends a body that comes in parts, with its length or in chunks', async () => {
    await using server = await startServer(echo)
    expect(await textOf((await server.send('abc')).body)).toBe('3 abc')
    expect(await textOf((await server.send(parts('ab', '', 'cd'))).body)).toBe('chunked abcd')
    expect(await textOf((await server.send(parts('ab', 'cd'), { 'content-length': '4' })).body)).toBe('4 abcd')
    expect(await textOf((await server.send(parts())).body)).toBe('chunked ')
  })

  it('takes from the body only what the server has room for', async () => {
    let receivedBytes = 0
    await using server = await startServer((request, response) => {
      request.on('data', (part: Buffer) => {
        receivedBytes += part.length
      })
      request.on('end', () => response.end())
    })
    const partBytes = 64 * 1024
    let takenBytes = 0
    let mostAhead = 0
    const body = async function* () {
      for (let count = 0; count < 2000; count += 1) {
        takenBytes += partBytes
        mostAhead = Math.max(mostAhead, takenBytes - receivedBytes)
        yield Buffer.alloc(partBytes)
      }
    }
    expect((await server.send(body())).status).toBe(200)
    expect(receivedBytes).toBe(2000 * partBytes)
    // What fits into the buffers of both sockets, far from the 125 MiB of all.
    expect(mostAhead).toBeLessThan(40 * 1024 * 1024)
  })

  it('gives the answer of a server that refuses before all is sent, and lets go of the rest', async () => {
    await using server = await startServer((_request, response) => response.writeHead(413).end('too large'))
    const released = Promise.withResolvers<void>()
    const endless = async function* () {
      try {
        for (;;) yield Buffer.alloc(64 * 1024)
      } finally {
        released.resolve()
      }
    }
    const response = await server.send(endless())
    expect([response.status, await textOf(response.body)]).toEqual([413, 'too large'])
    await released.promise
  })

  it('rejects with what the reading of the body threw, and with the reason of its signal', async () => {
    await using server = await startServer((request) => void request.resume())
    const failing = async function* () {
      yield Buffer.from('a')
      throw new Error('the disk is gone')
    }
    await expect(server.send(failing())).rejects.toThrow('the disk is gone')
    const controller = new AbortController()
    const waiting = async function* () {
      yield Buffer.from('a')
      controller.abort(new Error('enough'))
      yield Buffer.from('b')
    }
    await expect(server.send(waiting(), {}, controller.signal)).rejects.toThrow('enough')
  })
})
