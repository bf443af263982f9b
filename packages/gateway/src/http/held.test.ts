import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { MagsError } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { FakeDirectory } from './testing/fake-directory.ts'
import { openTestClient, openTestGateway, openUpstream } from './testing/open-test-gateway.ts'

const json = 'GET / HTTP/1.1\r\nHost: web.apps.localhost\r\nConnection: close\r\n\r\n'
const browser = 'GET / HTTP/1.1\r\nHost: web.apps.localhost\r\nAccept: text/html,*/*\r\nConnection: close\r\n\r\n'

describe('a sleeping job', () => {
  it('is opened once for a hundred requests, and all are answered', async () => {
    const upstream = await openUpstream((_request, response) => response.end('awake'))
    const directory = new FakeDirectory(upstream.port, { state: 'sleeping' })
    const { promise, resolve } = Promise.withResolvers<void>()
    directory.opening = promise
    const gateway = await openTestGateway(directory)
    const clients = await Promise.all(Array.from({ length: 100 }, () => openTestClient(gateway)))
    for (const client of clients) client.send(json)
    while (directory.opens === 0) await new Promise((next) => setImmediate(next))
    resolve()
    const answers = await Promise.all(clients.map((client) => client.untilClosed()))
    expect(answers.filter((answer) => answer.endsWith('awake') || answer.includes('awake\r\n'))).toHaveLength(100)
    expect(directory.opens).toBe(1)
    await directory.released()
  })

  it('shows browsers a page that asks again, and wakes on', async () => {
    const upstream = await openUpstream((_request, response) => response.end('awake'))
    const directory = new FakeDirectory(upstream.port, { state: 'sleeping' })
    const { promise, resolve } = Promise.withResolvers<void>()
    directory.opening = promise
    const gateway = await openTestGateway(directory, { limits: { pageMs: 20 } })
    const first = await openTestClient(gateway)
    first.send(browser)
    const page = await first.untilClosed()
    expect(page).toMatch(/^HTTP\/1\.1 503 [\s\S]*Retry-After: 2\r\n[\s\S]*<meta http-equiv="refresh" content="2">[\s\S]*web is waking up/)
    expect(page).not.toMatch(/src=|<script|https?:\/\//)
    const second = await openTestClient(gateway)
    second.send(json)
    while (directory.leases === 0) {
      resolve()
      await new Promise((next) => setImmediate(next))
    }
    expect(await second.untilClosed()).toContain('awake')
    expect(directory.opens).toBe(1)
  })

  it('that takes too long is a 504, too many waiters are a 503', async () => {
    const directory = new FakeDirectory(1, { state: 'sleeping' })
    directory.opening = new Promise(() => {})
    const gateway = await openTestGateway(directory, { limits: { heldMs: 50, maxHeldPerJob: 2 } })
    const clients = await Promise.all([1, 2, 3].map(() => openTestClient(gateway)))
    for (const client of clients) client.send(json)
    const answers = await Promise.all(clients.map((client) => client.untilClosed()))
    expect(answers.map((answer) => answer.slice(9, 12)).sort()).toEqual(['503', '504', '504'])
    expect(answers.find((answer) => answer.includes(' 504 '))).toContain('job web was not ready within 0.05 s')
  })

  it('that cannot be woken is a 502 with the reason, and is tried anew', async () => {
    const directory = new FakeDirectory(1, { state: 'sleeping' })
    directory.opening = Promise.reject(new MagsError('wake_failed', 'web could not be woken: no memory'))
    directory.opening.catch(() => {})
    const gateway = await openTestGateway(directory)
    for (const [request, wanted] of [
      [json, '"error":"web could not be woken: no memory","code":"wake_failed"'],
      [browser, 'Web could not be woken: no memory.'],
    ] as const) {
      const client = await openTestClient(gateway)
      client.send(request)
      const answer = await client.untilClosed()
      expect(answer).toMatch(/^HTTP\/1\.1 502 /)
      expect(answer).toContain(wanted)
    }
    expect(directory.opens).toBe(2)
  })

  it('whose sandbox is put to sleep while it is open is opened anew', async () => {
    const upstream = await openUpstream((_request, response) => response.end('awake'))
    const directory = new FakeDirectory(upstream.port)
    const gateway = await openTestGateway(directory, { limits: { lingerMs: 60_000 } })
    for (const state of ['running', 'running', 'sleeping'] as const) {
      directory.target = { ...directory.target, state }
      const client = await openTestClient(gateway)
      client.send(json)
      expect(await client.untilClosed()).toContain('awake')
    }
    expect({ opens: directory.opens, leases: directory.leases }).toEqual({ opens: 2, leases: 1 })
  })
})

describe('a port nobody listens on', () => {
  it('is a 502 at once that names it when the job runs for long', async () => {
    const directory = new FakeDirectory(await closedPort())
    const gateway = await openTestGateway(directory)
    const client = await openTestClient(gateway)
    client.send(json)
    const answer = await client.untilClosed()
    expect(answer).toMatch(/^HTTP\/1\.1 502 /)
    expect(answer).toContain(`nothing listens on port ${directory.target.port} in web`)
    expect(answer).toContain('"code":"not_listening"')
    expect(directory.connects).toBe(1)
  })

  it('is tried again while the job is young', async () => {
    const port = await closedPort()
    const directory = new FakeDirectory(port, { startedAt: Date.now() })
    const gateway = await openTestGateway(directory)
    const client = await openTestClient(gateway)
    client.send(json)
    while (directory.connects < 2) await new Promise((next) => setImmediate(next))
    const server = createServer((socket) => socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere')))
    server.listen(port, '127.0.0.1')
    expect(await client.untilClosed()).toMatch(/here$/)
    server.close()
    await once(server, 'close')
  })

  it('is a 502 when it stays so, and a page for a browser before', async () => {
    const directory = new FakeDirectory(await closedPort())
    directory.wokenAt = Date.now()
    const gateway = await openTestGateway(directory, { limits: { listenMs: 100, pageMs: 30 } })
    const [program, person] = [await openTestClient(gateway), await openTestClient(gateway)]
    program.send(json)
    person.send(browser)
    expect(await person.untilClosed()).toMatch(/^HTTP\/1\.1 503 [\s\S]*web is starting/)
    expect(await program.untilClosed()).toMatch(/^HTTP\/1\.1 502 [\s\S]*not_listening/)
    await directory.released()
  })
})

async function closedPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
