import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Browser, missingBrowser, openBrowser } from '../kit/browser.ts'
import { runMags } from '../kit/command-line.ts'
import { curl } from '../kit/curl.ts'
import { type DaemonPlace, makePlace, startDaemon, type TestDaemon } from '../kit/daemon.ts'
import { isRunning, systemWords, untilStatus } from '../kit/jobs.ts'
import { leftOf } from '../kit/leaks.ts'
import { canTest, notRoot } from '../kit/require.ts'
import { missingForVms } from '../kit/vm-ground.ts'
import { buildWebServer, serveScript } from '../kit/web-server.ts'
import { WorkspaceClient } from '../kit/workspace-client.ts'

const local = '127.0.0.1:8080'
const able = canTest('MAGS_REQUIRE_CONTAINER', notRoot) && canTest('MAGS_REQUIRE_BROWSER', missingBrowser)
const ableVms = able && canTest('MAGS_REQUIRE_VM', missingForVms())

describe.skipIf(!able)('URLs of sandboxes', () => {
  const held = new AsyncDisposableStack()
  let folder: string
  let program: string
  let browser: Browser
  let place: DaemonPlace
  let daemon: TestDaemon
  let client: WorkspaceClient
  let fileId: string
  let gatewayPort: number

  const start = async (environment: Record<string, string> = {}) => {
    daemon = await startDaemon({ MAGS_GATEWAY_PORT: String(gatewayPort), MAGS_POOL_MIN: '1', ...environment }, place)
    client = new WorkspaceClient(daemon)
  }

  /** A persistent job with the web server in its home. */
  const open = async (script: string, job: Record<string, unknown> = {}) => {
    const id = await client.submit({ script, persistent: true, isolation: 'container', file_ids: [fileId], ...job })
    await untilStatus(client.mags, id, isRunning)
    return id
  }
  const access = (id: string, body: object = { port: 8080 }) => client.call<{ url: string; port: number }>('POST', `mags-jobs/${id}/access`, body)
  const urlOf = async (id: string) => (await access(id)).url
  const sleep = async (id: string, stage: string) => {
    expect(await client.call('POST', `mags-jobs/${id}/sleep`, { release: stage !== 'frozen' })).toMatchObject({ sleep_stage: stage })
  }
  const page = async () => await browser.context.newPage()

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'mags-urls-'))
    held.defer(() => rm(folder, { recursive: true, force: true }))
    program = await buildWebServer(folder)
    gatewayPort = await freePort()
    place = held.use(await makePlace())
    browser = held.use(await openBrowser())
    await start()
    held.defer(() => daemon[Symbol.asyncDispose]())
    fileId = (await client.mags.uploadFile(program)).file_id
  })

  afterAll(async () => {
    await daemon?.[Symbol.asyncDispose]()
    const left = daemon === undefined ? [] : leftOf(daemon)
    await held.disposeAsync()
    expect(left).toEqual([])
  })

  it('a page and its WebSocket in a browser, from one command; the next job on the workspace has the same URL', async () => {
    const env = { HOME: daemon.home }
    const run = () => runMags(['run', '-w', 'webapp', '-p', '--url', '-f', program, serveScript(local)], { env })
    const { code, stdout } = await run()
    expect(code).toBe(0)
    const [id = '', url = ''] = stdout.trim().split('\n')
    expect(url).toMatch(new RegExp(`^http://[0-9a-f]{12}\\.apps\\.localhost:${gatewayPort}$`))
    const tab = await page()
    const answer = await tab.goto(url)
    expect(answer?.status()).toBe(200)
    expect(await tab.title()).toBe('In the sandbox')
    await tab.getByText('through the gateway').waitFor()
    await tab.close()

    await client.stop(id)
    const gone = await curl(url)
    expect([gone.status, gone.body]).toEqual([410, expect.stringMatching(/is over .*"code":"job_not_running"/)])
    const again = await run()
    expect(again.stdout.trim().split('\n')[1]).toBe(url)
    expect((await curl(url)).status).toBe(200)
    await client.stop('webapp')
    await client.mags.deleteWorkspace('webapp')
    expect((await curl(url)).status).toBe(404)
  })

  describe('of one server', () => {
    let id: string
    let url: string

    beforeAll(async () => {
      id = await open(serveScript(local), { workspace_id: 'site', name: 'site-job' })
      url = await urlOf(id)
    })

    it('stream events one by one', async () => {
      const tab = await page()
      await tab.goto(url)
      const events = tab.evaluate(`new Promise((resolve) => {
        const source = new EventSource('/events')
        const seen = []
        source.onmessage = ({ data }) => {
          seen.push(data)
          if (seen.length === 1) fetch('/release')
          else { source.close(); resolve(seen) }
        }
      })`)
      expect(await events).toEqual(['first', 'second'])
      await tab.close()
    })

    it('carry 50 MB up and down unchanged, and requests on one connection', async () => {
      const [up, down] = [join(folder, 'up'), join(folder, 'down')]
      const content = randomBytes(50_000_000)
      await writeFile(up, content)
      expect(await curl('-T', up, `${url}/upload`)).toMatchObject({ exitCode: 0, status: 201, body: 'kept\n' })
      expect((await client.exec(id, 'sha256sum upload')).split(' ')[0]).toBe(digestOf(content))
      expect(await curl('--no-include', '-o', down, `${url}/upload`)).toMatchObject({ exitCode: 0, status: 200 })
      expect(digestOf(await readFile(down))).toBe(digestOf(content))
      expect(await curl(`${url}/place`, '--next', '-sS', '-w', '\n--curl--%{http_code} %{http_version} %{num_connects}', `${url}/place`)).toMatchObject({
        connects: 0,
      })
    })

    it('are also the first characters of the id, aliases, and domains; other names are 404', async () => {
      const port = `:${gatewayPort}`
      await client.mags.urlAliasCreate('shop', 'site', { domain: 'shop.example.com' })
      const names = [url, `http://${id.slice(0, 12)}.apps.localhost${port}`, `http://shop.apps.localhost${port}`]
      for (const name of names) expect(await curl(`${name}/place`)).toMatchObject({ status: 200, body: `${local}\n` })
      expect(await curl('-H', 'Host: shop.example.com', `http://127.0.0.1${port}/place`)).toMatchObject({ status: 200, body: `${local}\n` })
      for (const host of ['nobody.apps.localhost', 'apps.localhost', '127.0.0.1', 'other.example.com', `a.${new URL(url).hostname}`]) {
        const { status, body } = await curl('-H', `Host: ${host}`, `http://127.0.0.1${port}/`)
        expect([host, status, body]).toEqual([host, 404, expect.stringContaining(`no sandbox has the address ${host}`)])
      }
      const bearer = ['-H', `Authorization: Bearer ${daemon.token}`]
      expect((await curl(...bearer, '-H', 'Host: apps.localhost', `http://127.0.0.1${port}/api/v1/mags-jobs`)).status).toBe(404)
      expect((await curl('-H', `Host: ${new URL(url).host}`, `${daemon.url}/place`)).status).toBe(404)
      await client.mags.urlAliasDelete('shop')
      expect((await curl(`${names[2]}/place`)).status).toBe(404)
    })

    it('lead to whichever port was opened last, on any address of the sandbox', async () => {
      await client.exec(id, './web-server 0.0.0.0 9090 > /dev/null & ./web-server 127.0.0.1 9091 > /dev/null & sleep 0.2')
      expect(await access(id, { port: 9090 })).toMatchObject({ url, port: 9090 })
      expect((await curl(`${url}/place`)).body).toBe('0.0.0.0:9090\n')
      await client.call('PATCH', `mags-jobs/${id}`, { port: 9091 })
      expect((await curl(`${url}/place`)).body).toBe('127.0.0.1:9091\n')
      await access(id)
      expect((await curl(`${url}/place`)).body).toBe(`${local}\n`)
    })

    it('private: a token, or a form and a cookie, none of which the sandbox sees', async () => {
      await access(id, { port: 8080, visibility: 'token' })
      const asked = await curl(`${url}/head`)
      expect([asked.status, asked.body]).toEqual([401, expect.stringContaining('"code":"unauthorized"')])
      expect((await curl('-H', 'Authorization: Bearer wrong', `${url}/head`)).status).toBe(401)
      const opened = await curl('-H', `Authorization: Bearer ${daemon.token}`, '-H', 'Cookie: own=1', `${url}/head`)
      expect([opened.status, opened.body]).toEqual([200, expect.stringContaining('Cookie: own=1')])
      expect(opened.body).not.toMatch(/authorization|mags_/i)

      const tab = await page()
      expect((await tab.goto(`${url}/head?x=1`))?.status()).toBe(401)
      const enter = async (token: string) => {
        await tab.getByLabel('Token').fill(token)
        await tab.getByRole('button').click()
      }
      await enter('mags_wrong')
      await tab.getByRole('alert').waitFor()
      await enter(daemon.token)
      await tab.getByText('GET /head?x=1').waitFor()
      expect((await browser.context.cookies(url)).map(({ name, httpOnly }) => [name, httpOnly])).toEqual([['mags_access', true]])
      expect(await tab.locator('body').innerText()).not.toMatch(/mags_/i)
      await tab.goto(url)
      await tab.getByText('through the gateway').waitFor()
      await tab.close()
      await access(id, { port: 8080, visibility: 'public' })
      expect((await curl(`${url}/head`)).status).toBe(200)
    })

    it('cut an answer that the server does not finish', async () => {
      expect(await curl(`${url}/dies`)).toMatchObject({ exitCode: 18, status: 200, body: 'the beginning' })
      expect((await curl(`${url}/place`)).status).toBe(200)
    })

    it('wait for a wake: a hundred requests at once, one wake', async () => {
      await sleep(id, 'frozen')
      const before = wakesIn(await systemWords(client.mags, id))
      const answers = await Promise.all(Array.from({ length: 100 }, (_, n) => curl(`${url}/place?${n}`)))
      expect(answers.map(({ status, body }) => `${status} ${body}`)).toEqual(Array(100).fill(`200 ${local}\n`))
      expect(wakesIn(await systemWords(client.mags, id)) - before).toBe(1)
      expect(await client.mags.status(id)).toMatchObject({ status: 'running', wake_reason: 'http' })
    })

    it('answer again after the server of the URLs was killed in the middle of a download; the sandbox lives on', async () => {
      await writeFile(join(folder, 'half'), randomBytes(1_000_000))
      await curl('-T', join(folder, 'half'), `${url}/upload`)
      const { vm_id: machine } = await client.mags.status(id)
      const socket = connect(gatewayPort, '127.0.0.1')
      let received = 0
      socket.on('data', (bytes) => {
        received += bytes.length
      })
      socket.on('error', () => undefined)
      socket.write(`GET /half HTTP/1.1\r\nHost: ${new URL(url).host}\r\n\r\n`)
      await expect.poll(() => received, { timeout: 30_000 }).toBeGreaterThan(400_000)
      const cut = once(socket, 'close')
      await daemon.crash()
      await cut
      expect(received).toBeLessThan(1_000_000)

      await start()
      expect(await curl(`${url}/place`)).toMatchObject({ status: 200, body: `${local}\n` })
      expect(await client.mags.status(id)).toMatchObject({ status: 'running', vm_id: machine, url })
    })

    it('over TLS: HTTP/2, uploads, WebSockets', async () => {
      const [cert, key] = await makeCertificate(folder)
      expect(await daemon.stop()).toBe(0)
      await start({ MAGS_TLS_CERT: cert, MAGS_TLS_KEY: key })
      const secure = await urlOf(id)
      expect(secure).toBe(url.replace('http:', 'https:'))
      const tls = ['--http2', '--cacert', cert]
      expect(await curl(...tls, `${secure}/place`)).toMatchObject({ status: 200, httpVersion: '2', body: `${local}\n` })
      expect((await curl(...tls, `${secure}/head`)).body).toContain('X-Forwarded-Proto: https')
      expect(await curl('--http1.1', '--cacert', cert, `${secure}/place`)).toMatchObject({ status: 200, httpVersion: '1.1' })
      const [up, down] = [join(folder, 'up'), join(folder, 'down')]
      expect(await curl(...tls, '-T', up, `${secure}/upload`)).toMatchObject({ exitCode: 0, status: 201, httpVersion: '2' })
      expect(await curl(...tls, '--no-include', '-o', down, `${secure}/upload`)).toMatchObject({ exitCode: 0, status: 200, httpVersion: '2' })
      expect(digestOf(await readFile(down))).toBe(digestOf(await readFile(up)))
      expect((await curl(...tls, `${secure}/dies`)).exitCode).not.toBe(0)
      const tab = await page()
      await tab.goto(secure)
      await tab.getByText('through the gateway').waitFor()
      expect(await tab.evaluate('performance.getEntriesByType("navigation")[0].nextHopProtocol')).toBe('h2')
      await tab.close()
      expect(await daemon.stop()).toBe(0)
      await start()
    })
  })

  // Each with its own sandbox, and none waits for another.
  describe('of one sandbox each', { concurrent: true }, () => {
    it('wait for a server that does not listen yet, and name the port of one that never does', async () => {
      const [late, never] = await Promise.all([open(serveScript('0.0.0.0:8080', 3)), open('exec sleep infinity')])
      const [answer, refused] = await Promise.all([curl(`${await urlOf(late)}/place`), curl(await urlOf(never))])
      expect(answer).toMatchObject({ status: 200, body: '0.0.0.0:8080\n' })
      expect([refused.status, refused.body]).toEqual([502, expect.stringContaining('nothing listens on port 8080')])
      await Promise.all([client.stop(late), client.stop(never)])
    })

    it('a browser that opens a sleeping one sees that it wakes, and then its page', async () => {
      const id = await open(serveScript(local), { workspace_id: 'sleeper', startup_command: serveScript(local, 4) })
      const url = await urlOf(id)
      await sleep(id, 'released')
      const tab = await page()
      const waiting = await tab.goto(url)
      expect([waiting?.status(), waiting?.headers()['retry-after']]).toEqual([503, '2'])
      await tab.getByRole('status').getByText('This page opens by itself').waitFor()
      await tab.getByRole('heading', { name: 'In the sandbox' }).waitFor()
      await tab.getByText('through the gateway').waitFor()
      await tab.close()
      expect(wakesIn(await systemWords(client.mags, id))).toBe(1)
      await client.stop(id)
    })

    it.skipIf(!ableVms)(
      'of a virtual machine, also when it is woken',
      async () => {
        const id = await open(serveScript(local), { isolation: 'vm' })
        const url = await urlOf(id)
        const tab = await page()
        await tab.goto(url)
        await tab.getByText('through the gateway').waitFor()
        await tab.close()
        await sleep(id, 'frozen')
        expect(await curl(`${url}/place`)).toMatchObject({ status: 200, body: `${local}\n` })
        expect(await client.mags.status(id)).toMatchObject({ status: 'running', wake_reason: 'http' })
        await client.stop(id)
      },
      120_000,
    )
  })
})

const digestOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
const wakesIn = (words: string) => words.split('\n').filter((row) => row.startsWith('woken by')).length

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

async function makeCertificate(folder: string): Promise<[cert: string, key: string]> {
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')]
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']
  const names = ['-subj', '/CN=apps.localhost', '-addext', 'subjectAltName=DNS:*.apps.localhost,DNS:apps.localhost']
  await promisify(execFile)('openssl', ['req', '-x509', ...curve, '-nodes', '-days', '2', ...names, '-keyout', key, '-out', cert])
  return [cert, key]
}
