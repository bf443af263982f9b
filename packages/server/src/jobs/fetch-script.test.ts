import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it } from 'vitest'
import { type FetchScriptOptions, fetchScript } from './fetch-script.ts'

/** Only this test's own server may be reached; everything else is as in production. */
const local: FetchScriptOptions = { mayConnect: (address) => address === '127.0.0.1' }

async function serve(listener: RequestListener) {
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return { port, address: `http://127.0.0.1:${port}`, [Symbol.dispose]: () => void server.close().closeAllConnections() }
}

describe('fetchScript', () => {
  it('reads a script, also over redirects', async () => {
    using site = await serve((request, response) => {
      const left = Number(request.url?.slice(1))
      if (left > 0) response.writeHead(302, { location: `/${left - 1}` }).end()
      else response.end('echo é')
    })
    expect(await fetchScript(`${site.address}/5`, local)).toBe('echo é')
    await expect(fetchScript(`${site.address}/6`, local)).rejects.toMatchObject({
      code: 'script_fetch_failed',
      message: expect.stringContaining('more than 5 redirects'),
    })
  })

  it.each([
    ['http://127.0.0.1:1/', '127.0.0.1 is not a public address'],
    ['http://0x7f.1/', '127.0.0.1 is not a public address'],
    ['http://2130706433/', '127.0.0.1 is not a public address'],
    ['http://[::1]/', '::1 is not a public address'],
    ['http://[::ffff:169.254.169.254]/', 'is not a public address'],
    ['http://169.254.169.254/latest/meta-data', '169.254.169.254 is not a public address'],
    ['http://localhost:1/', 'localhost resolves to'],
    ['file:///etc/passwd', 'must begin with http:// or https://'],
    ['echo hi', 'must begin with http:// or https://'],
    ['http://user:secret@example.org/', 'must not contain a user name'],
  ])('refuses %s', async (address, words) => {
    await expect(fetchScript(address)).rejects.toMatchObject({ code: 'script_fetch_failed', message: expect.stringContaining(words) })
  })

  it('refuses a redirect to an address that is not public', async () => {
    let asked = 0
    using inside = await serve((_request, response) => {
      asked++
      response.end('secret')
    })
    using site = await serve((_request, response) => response.writeHead(302, { location: `http://127.0.0.2:${inside.port}/` }).end())
    await expect(fetchScript(site.address, local)).rejects.toMatchObject({ message: expect.stringContaining('127.0.0.2 is not a public address') })
    expect(asked).toBe(0)
  })

  it('checks the address it connects to, not one it looked up before', async () => {
    let lookups = 0
    using inside = await serve((_request, response) => response.end('secret'))
    const lookup: FetchScriptOptions['lookup'] = (_name, _options, callback) => {
      lookups++
      callback(null, [{ address: '127.0.0.1', family: 4 }])
    }
    await expect(fetchScript(`http://rebind.example:${inside.port}/`, { lookup })).rejects.toMatchObject({
      message: expect.stringContaining('rebind.example resolves to 127.0.0.1, which is not a public address'),
    })
    expect(lookups).toBe(1)
  })

  it('refuses a name of which only some addresses are public', async () => {
    const lookup: FetchScriptOptions['lookup'] = (_name, _options, callback) =>
      callback(null, [
        { address: '1.1.1.1', family: 4 },
        { address: '10.0.0.1', family: 4 },
      ])
    await expect(fetchScript('http://both.example/', { lookup })).rejects.toMatchObject({ message: expect.stringContaining('resolves to 10.0.0.1') })
  })

  it('says why there is no script', async () => {
    using site = await serve((request, response) => {
      if (request.url === '/404') response.writeHead(404).end()
      else if (request.url === '/big') response.end(Buffer.alloc(1024 * 1024 + 1, 97))
      else if (request.url === '/binary') response.end(Buffer.from([0xff, 0xfe]))
      else if (request.url === '/empty') response.end()
    })
    const failure = (path: string, options = local) =>
      fetchScript(site.address + path, options).then(
        () => 'a script',
        (error: Error) => error.message,
      )
    expect(await failure('/404')).toContain('HTTP status 404')
    expect(await failure('/big')).toContain('it is over 1 MiB')
    expect(await failure('/binary')).toContain('it is not UTF-8 text')
    expect(await failure('/empty')).toContain('it is empty')
    expect(await failure('/never', { ...local, timeoutMs: 100 })).toContain('not read within 0.1 s')
  })
})
