import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { FakeServer } from './testing/fake-server.ts'
import { buildCli, newHome, runCli } from './testing/run-cli.ts'
import { sendJson } from './testing/send-json.ts'

const url = 'http://0123456789ab.apps.localhost:4780'
const answers: Readonly<Record<string, object>> = {
  access: { success: true, message: 'External access enabled', url, subdomain: '0123456789ab', ipv6_address: null, port: 8080, access_type: 'http_proxy' },
  sleep: { success: true, message: 'Job sleeps', status: 'sleeping', sleep_stage: 'frozen' },
  wake: { success: true, message: 'Job woken', status: 'running', wake_duration_ms: 12.5 },
}

let home: Awaited<ReturnType<typeof newHome>>
let server: FakeServer
let portOfJob: number

beforeAll(async () => {
  buildCli()
  home = await newHome()
  // The wall is explained once per machine.
  await mkdir(join(home.path, '.mags'))
  await writeFile(join(home.path, '.mags', 'container-isolation-told'), '')
})
beforeEach(async () => {
  await server?.[Symbol.asyncDispose]()
  server = await new FakeServer({ serve: { status: { status: 'running', name: 'web' } } }).listen()
  portOfJob = 8080
  server.intercept = ({ method, path }, response) => {
    const verb = path.split('/')[3] ?? ''
    if (path === '/mags-jobs/web/status') sendJson(response, 200, { request_id: firstId, name: 'web', status: 'running', port: portOfJob })
    else if (method === 'PATCH') sendJson(response, 200, { success: true, message: 'Job updated' })
    else if (method === 'POST' && verb === 'fork') sendJson(response, 202, { request_id: firstId, status: 'accepted', message: '', with_memory: false })
    else if (method === 'POST' && answers[verb] !== undefined) sendJson(response, 200, answers[verb])
    else return false
    return true
  }
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await home[Symbol.asyncDispose]()
})

const firstId = '00000000-0000-4000-8000-000000000000'
const mags = (...args: string[]) => runCli(args, { server, home: home.path })
const bodies = (path: RegExp) => server.requests.filter((request) => path.test(request.path) && request.method !== 'GET').map(({ body }) => body)

describe('mags run --url', () => {
  it('opens the port and prints the URL', async () => {
    const result = await mags('run', '-p', '--url', '--port', '3000', 'serve')
    expect(result).toMatchObject({ code: 0, stdout: `${firstId}\n${url}\n` })
    expect(bodies(/\/mags-jobs$/)).toEqual([{ script: 'serve', persistent: true, port: 3000 }])
    expect(bodies(/\/access$/)).toEqual([{ port: 3000 }])
    expect(JSON.parse((await mags('run', '-p', '--url', '--json', 'serve')).stdout)).toMatchObject({ url })
  })

  it('needs a sandbox that stays, and time to wait for it', async () => {
    expect(await mags('run', '--url', 'serve')).toMatchObject({ code: 2, stderr: expect.stringContaining('--url needs --persistent') })
    expect(await mags('run', '-p', '--url', '--detach', 'serve')).toMatchObject({ code: 2, stderr: expect.stringContaining('--detach') })
    expect(server.requests).toEqual([])
  })
})

describe('mags url', () => {
  it.each([
    [['web'], { port: 8080 }],
    [['web', '3000'], { port: 3000 }],
    [['web', '--port', '3000', '--visibility', 'token'], { port: 3000, visibility: 'token' }],
  ])('%j asks for the port', async (args, body) => {
    expect(await mags('url', ...args)).toEqual({ code: 0, stdout: `${url}\n`, stderr: '' })
    expect(bodies(/\/mags-jobs\/web\/access$/)).toEqual([body])
  })

  it.each([
    [['web', '0'], 'from 1 to 65535'],
    [['web', '70000'], 'from 1 to 65535'],
    [['web', '22'], 'mags ssh'],
    [['web', '80', '--port', '81'], 'twice'],
    [['web', '--visibility', 'nobody'], 'public, token'],
    [[], 'id'],
  ])('%j is refused', async (args, words) => {
    expect(await mags('url', ...args)).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining(words) })
    expect(server.requests).toEqual([])
  })

  it('without a port leads to the one the job has', async () => {
    portOfJob = 3000
    expect(await mags('url', 'web')).toMatchObject({ code: 0 })
    expect(bodies(/\/access$/)).toEqual([{ port: 3000 }])
  })

  it('prints the answer of the API', async () => {
    expect(JSON.parse((await mags('url', 'web', '--json')).stdout)).toEqual(answers.access)
  })
})

describe('mags sleep, wake and set', () => {
  it('say what became of it', async () => {
    expect(await mags('sleep', 'web')).toEqual({ code: 0, stdout: 'Job sleeps\n', stderr: '' })
    expect(await mags('sleep', 'web', '--release')).toMatchObject({ code: 0 })
    expect(await mags('wake', 'web')).toEqual({ code: 0, stdout: 'Job woken\n', stderr: '' })
    expect(bodies(/\/sleep$/)).toEqual([{}, { release: true }])
    expect(JSON.parse((await mags('wake', 'web', '--json')).stdout)).toMatchObject({ wake_duration_ms: 12.5 })
  })

  it.each([
    [['--no-sleep'], { no_sleep: true }],
    [['--sleep'], { no_sleep: false }],
    [['--startup-command', 'serve'], { startup_command: 'serve' }],
    [['--startup-command', ''], { startup_command: null }],
    [['--port', '3000', '--visibility', 'token'], { port: 3000, visibility: 'token' }],
    [
      ['--allow', 'example.org', '--allow', '*.example.org', '--deny', '203.0.113.0/24'],
      { egress: { allow: ['example.org', '*.example.org'], deny: ['203.0.113.0/24'] } },
    ],
    [['--no-network'], { egress: 'none' }],
  ])('set %j changes that alone', async (args, body) => {
    expect(await mags('set', 'web', ...args)).toEqual({ code: 0, stdout: 'Job updated\n', stderr: '' })
    expect(bodies(/\/mags-jobs\/web$/)).toEqual([body])
  })

  it('set needs something to change, and no contradiction', async () => {
    expect(await mags('set', 'web')).toMatchObject({ code: 2, stderr: expect.stringContaining('Nothing to change') })
    expect(await mags('set', 'web', '--no-network', '--allow', 'a.b')).toMatchObject({ code: 2, stderr: expect.stringContaining('--no-network') })
    expect(await mags('set', 'web', '--port', '22')).toMatchObject({ code: 2, stderr: expect.stringContaining('mags ssh') })
    expect(server.requests).toEqual([])
  })
})

describe('mags fork', () => {
  it('prints the id of the copy, and says what was not copied', async () => {
    await mags('run', '-p', 'serve')
    expect(await mags('fork', 'web', '-n', 'copy', '-w', 'ws')).toMatchObject({ code: 0, stdout: `${firstId}\n` })
    expect(bodies(/\/fork$/)).toEqual([{ name: 'copy', workspace_id: 'ws' }])
    expect(JSON.parse((await mags('fork', 'web', '--json')).stdout)).toMatchObject({ with_memory: false })
  })
})
