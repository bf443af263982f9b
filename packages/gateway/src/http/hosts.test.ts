import { describe, expect, it } from 'vitest'
import { FakeDirectory } from './testing/fake-directory.ts'
import { openTestClient, openTestGateway, openUpstream } from './testing/open-test-gateway.ts'

async function open(changes: ConstructorParameters<typeof FakeDirectory>[1] = {}) {
  const upstream = await openUpstream((request, response) => response.end(`inside ${request.url} ${request.headers.host}`))
  const gateway = await openTestGateway(new FakeDirectory(upstream.port, changes))
  return async (host: string, target = '/', headers = '') => {
    const client = await openTestClient(gateway)
    client.send(`GET ${target} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n${headers}\r\n`)
    return await client.untilClosed()
  }
}

describe('a host name', () => {
  it.each(['web.apps.localhost', 'WEB.Apps.LocalHost', 'web.apps.localhost.', 'web.apps.localhost:8080', 'web.apps.localhost.:8080', 'shop.example.org'])(
    '%s means the job',
    async (host) => {
      const ask = await open()
      expect(await ask(host)).toContain(`inside / ${host}`)
    },
  )

  it.each([
    'web.apps.localhost.evil.com',
    'evil.web.apps.localhost',
    'apps.localhost',
    'xweb.apps.localhost',
    '127.0.0.1',
    '[::1]',
    '[::1]:80',
    'localhost',
    'web',
  ])('%s means nothing', async (host) => {
    const ask = await open()
    const answer = await ask(host)
    expect(answer).toMatch(/^HTTP\/1\.1 404 [\s\S]*"code":"not_found"/)
    expect(answer).not.toContain('inside')
  })

  it('may stand in the target, too', async () => {
    const ask = await open()
    expect(await ask('web.apps.localhost', 'http://web.apps.localhost/x')).toContain('inside /x')
    expect(await ask('web.apps.localhost', 'HTTP://WEB.apps.localhost?x')).toContain('inside /?x')
  })

  it('of a job that is over says so', async () => {
    const ask = await open({ state: 'over' })
    const answer = await ask('web.apps.localhost')
    expect(answer).toMatch(/^HTTP\/1\.1 410 [\s\S]*"code":"job_not_running"/)
    // It may have been private: its name is nobody's business.
    expect(answer).toContain('the sandbox at web.apps.localhost is over')
    expect(await ask('web.apps.localhost', '/', 'Accept: text/html\r\n')).toMatch(/<h1>This sandbox is over<\/h1>/)
  })
})

describe('paths of the gateway', () => {
  it('say that it is well', async () => {
    const ask = await open()
    expect(await ask('apps.localhost', '/.mags/health')).toMatch(/^HTTP\/1\.1 200 [\s\S]*{"status":"ok"}/)
    expect(await ask('localhost:1', '/.mags/health')).toMatch(/^HTTP\/1\.1 200 /)
    expect(await ask('apps.localhost', '/.mags/other')).toMatch(/^HTTP\/1\.1 404 /)
  })

  it('tell a reverse proxy here which domains there are, and nobody else', async () => {
    const ask = await open()
    expect(await ask('localhost', '/.mags/ask?domain=shop.example.org')).toMatch(/^HTTP\/1\.1 200 /)
    expect(await ask('apps.localhost', '/.mags/ask?domain=SHOP.example.org')).toMatch(/^HTTP\/1\.1 200 /)
    for (const domain of ['evil.example.org', '', 'a%00b', 'shop.example.org:80', 'shop.example.org/x']) {
      expect(await ask('localhost', `/.mags/ask?domain=${domain}`)).toMatch(/^HTTP\/1\.1 404 /)
    }
    expect(await ask('apps.localhost', '/.mags/ask?domain=shop.example.org', 'X-Forwarded-For: 1.1.1.1\r\n')).toMatch(/^HTTP\/1\.1 403 /)
  })

  it('never reach a sandbox', async () => {
    const ask = await open()
    expect(await ask('web.apps.localhost', '/.mags/health')).toMatch(/^HTTP\/1\.1 404 /)
  })
})
