import { once } from 'node:events'
import { describe, expect, it } from 'vitest'
import { FakeDirectory } from './testing/fake-directory.ts'
import { openRawUpstream, openTestClient, openTestGateway, openUpstream } from './testing/open-test-gateway.ts'

const host = 'Host: web.apps.localhost\r\n'
const whole = `GET / HTTP/1.1\r\n${host}\r\n`

describe('time', () => {
  it.each([
    ['a head that does not end', `GET / HTTP/1.1\r\n${host}`, 408],
    ['a body that does not come', `POST / HTTP/1.1\r\n${host}Content-Length: 10\r\n\r\nabc`, 408],
    ['an answer that does not begin', whole, 504],
  ])('%s is cut off', async (_name, request, status) => {
    const upstream = await openRawUpstream(() => {})
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openTestGateway(directory, {
      limits: { headMs: status === 504 ? 10_000 : 80, bodyMs: 80, headTimeoutMs: status === 504 ? 80 : 10_000 },
    })
    const client = await openTestClient(gateway)
    client.send(request)
    if (status === 408) expect(await client.untilClosed()).toMatch(/^HTTP\/1\.1 408 /)
    else expect(await client.until('request_timeout')).toMatch(/^HTTP\/1\.1 504 /)
    await directory.released()
    expect(directory.sockets.size).toBe(0)
  })

  it('without a request ends a connection without words', async () => {
    const upstream = await openUpstream((_request, response) => response.end('ok'))
    const gateway = await openTestGateway(new FakeDirectory(upstream.port), { limits: { headMs: 1_000, keepAliveMs: 1_000 } })
    const [silent, used] = [await openTestClient(gateway), await openTestClient(gateway)]
    used.send(whole)
    expect(await silent.untilClosed()).toBe('')
    expect((await used.untilClosed()).match(/HTTP\/1\.1/g)).toHaveLength(1)
  })

  it('does not end an answer that takes its time', async () => {
    let finish: (() => void) | undefined
    const upstream = await openUpstream((_request, response) => {
      response.write('slow')
      finish = () => response.end('done')
    })
    const gateway = await openTestGateway(new FakeDirectory(upstream.port), {
      limits: { headMs: 1_000, keepAliveMs: 1_000, bodyMs: 1_000, headTimeoutMs: 1_000 },
    })
    const [client, other] = [await openTestClient(gateway), await openTestClient(gateway)]
    client.send(whole)
    await client.until('slow')
    // The other connection is over when all of these times are.
    await other.untilClosed()
    finish?.()
    expect(await client.until('0\r\n\r\n')).toContain('done')
  })
})

describe('number', () => {
  it('of connections from one address and in all is bounded', async () => {
    const upstream = await openUpstream((_request, response) => response.end('ok'))
    for (const limits of [{ maxConnectionsPerAddress: 2 }, { maxConnections: 2 }]) {
      const gateway = await openTestGateway(new FakeDirectory(upstream.port), { limits })
      const [first, second] = [await openTestClient(gateway), await openTestClient(gateway)]
      first.send(whole)
      second.send(whole)
      await Promise.all([first.until('ok'), second.until('ok')])
      const third = await openTestClient(gateway)
      expect(await third.untilClosed()).toMatch(/^HTTP\/1\.1 503 [\s\S]*Retry-After: 2\r\n[\s\S]*no_capacity/)
      second.socket.destroy()
      await once(second.socket, 'close')
      let answer = ''
      while (!answer.includes('200 OK')) {
        const next = await openTestClient(gateway)
        next.send(whole)
        answer = await next.until(/ok|no_capacity/)
      }
    }
  })

  it('of connections of a trusted proxy is not', async () => {
    const upstream = await openUpstream((_request, response) => response.end('ok'))
    const gateway = await openTestGateway(new FakeDirectory(upstream.port), { trustedProxies: ['127.0.0.1'], limits: { maxConnectionsPerAddress: 1 } })
    for (let i = 0; i < 3; i++) {
      const client = await openTestClient(gateway)
      client.send(whole)
      expect(await client.until('ok')).toContain('200 OK')
    }
  })
})

describe('close', () => {
  it('lets open requests end, and takes no more', async () => {
    let finish: (() => void) | undefined
    const upstream = await openUpstream((_request, response) => {
      response.write('begun')
      finish = () => response.end('done')
    })
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openTestGateway(directory, { limits: { drainMs: 20_000 } })
    const [idle, client] = [await openTestClient(gateway), await openTestClient(gateway)]
    client.send(`${whole}${whole}`)
    await client.until('begun')
    const closed = gateway.close()
    await idle.untilClosed()
    finish?.()
    const answer = await client.untilClosed()
    expect(answer).toContain('done')
    expect(answer.match(/HTTP\/1\.1/g)).toHaveLength(1)
    client.socket.end()
    await closed
    expect(directory.leases).toBe(0)
  })

  it('cuts what does not end in time', async () => {
    const upstream = await openUpstream((_request, response) => void response.write('begun'))
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openTestGateway(directory, { limits: { drainMs: 20 } })
    const client = await openTestClient(gateway)
    client.send(whole)
    await client.until('begun')
    await gateway.close()
    expect(await client.untilClosed()).not.toContain('0\r\n\r\n')
    expect(directory.leases).toBe(0)
  })
})
