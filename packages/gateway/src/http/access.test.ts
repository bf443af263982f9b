import { describe, expect, it } from 'vitest'
import { makeCookie, opensJob } from './access/session-cookie.ts'
import { takeTokenParameter } from './access/token-parameter.ts'
import { FakeDirectory } from './testing/fake-directory.ts'
import { openTestClient, openTestGateway, openUpstream } from './testing/open-test-gateway.ts'

interface Asked {
  readonly headers?: string
  readonly method?: string
  readonly body?: string
}

async function openPrivate() {
  const seen: { url: string | undefined; headers: string }[] = []
  const upstream = await openUpstream((request, response) => {
    seen.push({ url: request.url, headers: JSON.stringify(request.rawHeaders) })
    response.end('inside')
  })
  const directory = new FakeDirectory(upstream.port, { visibility: 'token' })
  const gateway = await openTestGateway(directory)
  const ask = async (path: string, { headers = '', method = 'GET', body = '' }: Asked = {}) => {
    const client = await openTestClient(gateway)
    client.send(`${method} ${path} HTTP/1.1\r\nHost: web.apps.localhost\r\nConnection: close\r\n${headers}\r\n${body}`)
    return await client.untilClosed()
  }
  return { ask, seen, directory, gateway }
}

describe('a private URL', () => {
  it('asks programs for a token and people with a form', async () => {
    const { ask, seen } = await openPrivate()
    expect(await ask('/')).toMatch(/^HTTP\/1\.1 401 [\s\S]*WWW-Authenticate: Bearer[\s\S]*"code":"unauthorized"/)
    expect(await ask('/x?y=<z>', { headers: 'Accept: text/html\r\n' })).toMatch(
      /^HTTP\/1\.1 401 [\s\S]*<form method="post" action="\/\.mags\/login">[\s\S]*value="\/x\?y=&#60;z&#62;"/,
    )
    expect(await ask('/', { headers: 'Authorization: Bearer wrong\r\n' })).toMatch(/^HTTP\/1\.1 401 /)
    expect(seen).toEqual([])
  })

  it('opens to a bearer token, which the sandbox does not see', async () => {
    const { ask, seen } = await openPrivate()
    expect(await ask('/a', { headers: 'Authorization: Bearer secret-token\r\nX: y\r\n' })).toContain('inside')
    expect(seen).toHaveLength(1)
    expect(seen[0]?.headers).not.toMatch(/secret|authorization/i)
  })

  it('takes a token in the address once and goes on with a cookie, which the sandbox does not see either', async () => {
    const { ask, seen } = await openPrivate()
    expect(await ask('/a?x=1&mags_token=wrong&y=2')).toMatch(/^HTTP\/1\.1 401 /)
    const redirect = await ask('/a?x=1&mags_token=secret-token&y=2', { headers: 'Accept: text/html\r\n' })
    expect(redirect).toMatch(/^HTTP\/1\.1 303 [\s\S]*Location: \/a\?x=1&y=2\r\n/)
    expect(redirect).toMatch(/Set-Cookie: mags_access=[\w.-]+; Path=\/; Max-Age=43200; HttpOnly; SameSite=Lax\r\n/)
    const cookie = /Set-Cookie: ([^;]+)/.exec(redirect)?.[1]
    const own = 'Authorization: Basic abc\r\n'
    expect(await ask('/a', { headers: `Cookie: theirs=1; ${cookie}; other=2\r\n${own}` })).toContain('inside')
    expect(await ask('/b', { headers: `Cookie: ${cookie}\r\n` })).toContain('inside')
    expect(seen.map(({ url }) => url)).toEqual(['/a', '/b'])
    expect(seen[0]?.headers).toContain('"theirs=1; other=2"')
    expect(seen[0]?.headers).toContain('Basic abc')
    expect(seen[1]?.headers).not.toMatch(/cookie/i)
  })

  it('does not take the cookie for a page of a neighbour', async () => {
    const { ask, seen } = await openPrivate()
    const cookie = /Set-Cookie: ([^;]+)/.exec(await ask('/?mags_token=secret-token'))?.[1]
    const asked = (origin: string) => ask('/', { method: 'POST', headers: `Cookie: ${cookie}\r\nOrigin: ${origin}\r\nContent-Length: 0\r\n` })
    expect(await asked('http://evil.apps.localhost')).toMatch(/^HTTP\/1\.1 401 /)
    expect(await asked('null')).toMatch(/^HTTP\/1\.1 401 /)
    expect(seen).toEqual([])
    expect(await asked('http://web.apps.localhost')).toContain('inside')
  })

  it('is no script, image or frame of a page of a neighbour, but a link there leads to it', async () => {
    const { ask, seen } = await openPrivate()
    const cookie = /Set-Cookie: ([^;]+)/.exec(await ask('/?mags_token=secret-token'))?.[1]
    const asked = (site: string, mode: string, dest: string) =>
      ask('/', { headers: `Cookie: ${cookie}\r\nSec-Fetch-Site: ${site}\r\nSec-Fetch-Mode: ${mode}\r\nSec-Fetch-Dest: ${dest}\r\n` })
    expect(await asked('same-site', 'no-cors', 'script')).toMatch(/^HTTP\/1\.1 401 /)
    expect(await asked('cross-site', 'no-cors', 'image')).toMatch(/^HTTP\/1\.1 401 /)
    expect(await asked('same-site', 'navigate', 'iframe')).toMatch(/^HTTP\/1\.1 401 /)
    expect(seen).toEqual([])
    expect(await asked('same-origin', 'no-cors', 'script')).toContain('inside')
    expect(await asked('none', 'navigate', 'document')).toContain('inside')
    expect(await asked('cross-site', 'navigate', 'document')).toContain('inside')
  })

  it('lets the form in, and only to a path of its own', async () => {
    const { ask, seen } = await openPrivate()
    const post = (body: string) =>
      ask('/.mags/login', { method: 'POST', body, headers: `Content-Type: application/x-www-form-urlencoded\r\nContent-Length: ${body.length}\r\n` })
    expect(await post('token=wrong&return=/x')).toMatch(/^HTTP\/1\.1 401 [\s\S]*does not open/)
    expect(await post('token=secret-token&return=%2Fx%3Fy')).toMatch(/^HTTP\/1\.1 303 [\s\S]*Location: \/x\?y\r\n[\s\S]*Set-Cookie: mags_access=/)
    expect(await post('token=secret-token&return=//evil.example')).toMatch(/Location: \/\r\n/)
    expect(await post('token=secret-token&return=/%5Cevil.example')).toMatch(/Location: \/\r\n/)
    expect(await post('token=secret-token&return=%2Fa%0d%0aX:y')).toMatch(/Location: \/\r\n/)
    expect(await post(`token=${'x'.repeat(20_000)}`)).toMatch(/^HTTP\/1\.1 413 /)
    expect(await ask('/.mags/login')).toMatch(/^HTTP\/1\.1 405 /)
    expect(await ask('/.mags/other')).toMatch(/^HTTP\/1\.1 404 /)
    expect(seen).toEqual([])
  })

  it('keeps the token from what a public one shows its sandbox, too', async () => {
    const { ask, seen, directory } = await openPrivate()
    directory.target = { ...directory.target, visibility: 'public' }
    await ask('/a?mags_token=secret-token', { headers: 'Cookie: mags_access=1.x; a=b\r\n' })
    expect(seen[0]).toMatchObject({ url: '/a' })
    expect(seen[0]?.headers).toContain('"a=b"')
  })
})

describe('the cookie', () => {
  const key = Buffer.alloc(32, 1)
  const pairOf = (cookie: string) => cookie.split(';')[0] ?? ''

  it('opens its job until it expires, and nothing else', () => {
    const cookie = pairOf(makeCookie(key, 'job-1', false, 1000))
    expect(opensJob(key, 'job-1', [`a=b; mags_access=forged; ${cookie}`], false, 2000)).toBe(true)
    expect(opensJob(key, 'job-2', [cookie], false, 2000)).toBe(false)
    expect(opensJob(Buffer.alloc(32, 2), 'job-1', [cookie], false, 2000)).toBe(false)
    expect(opensJob(key, 'job-1', [cookie], false, 1000 + 12 * 3600_000)).toBe(false)
    expect(opensJob(key, 'job-1', [cookie.replace(/=\d/, '=9')], false, 2000)).toBe(false)
    expect(opensJob(key, 'job-1', [cookie], true, 2000)).toBe(false)
  })

  it('belongs to one host and to TLS where there is TLS', () => {
    expect(makeCookie(key, 'job-1', true, 0)).toMatch(/^__Host-mags_access=[\w.-]+; Path=\/; Max-Age=43200; HttpOnly; SameSite=Lax; Secure$/)
  })
})

describe('the parameter', () => {
  it('is taken out wherever it stands', () => {
    expect(takeTokenParameter('/a?b=c')).toBeUndefined()
    expect(takeTokenParameter('/mags_token=x?b=c')).toBeUndefined()
    expect(takeTokenParameter('/a?mags_token=x%20y')).toEqual({ token: 'x y', rest: '/a' })
    expect(takeTokenParameter('/a?b=c&mags_token=x&mags_token=y&d')).toEqual({ token: 'x', rest: '/a?b=c&d' })
    expect(takeTokenParameter('/a?xmags_token=x')).toBeUndefined()
    expect(takeTokenParameter('/a?mags_token=%zz')).toEqual({ token: '', rest: '/a' })
  })
})
