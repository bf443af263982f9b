import { mkdir, writeFile } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { FakeServer, type SeenRequest } from './testing/fake-server.ts'
import { buildCli, newHome, runCli } from './testing/run-cli.ts'
import { sendJson } from './testing/send-json.ts'

const dueAt = '2026-01-02T03:00:00.000Z'
const noJob = { run_id: 'r', scheduled_for: dueAt, request_id: null, started_at: null, completed_at: null, exit_code: null }
const runRows = [
  { ...noJob, cause: 'manual', status: 'waiting', reason: 'the run before is not over' },
  { ...noJob, cause: 'catch_up', status: 'error', reason: null, request_id: 'job-2', exit_code: 3 },
  { ...noJob, cause: 'schedule', status: 'skipped', reason: 'evil \u001b[2J words' },
]
const nightly = { cron_id: 'c1', name: 'nightly', schedule: '0 3 * * *', timezone: 'UTC', next_run_at: dueAt, last_run: runRows[1], error: null }
const broken = { ...nightly, name: 'broken', next_run_at: null, last_run: null, error: 'schedule: is no more' }
const alias = { subdomain: 'blog', workspace_id: 'web', domain: null, url: 'http://blog.apps.localhost', created_at: dueAt, updated_at: dueAt }
const page = { total: 9, page: 1, page_size: 3 }

/** The cron and alias routes, from the contract. */
function answer({ method, path, body }: SeenRequest, response: ServerResponse): boolean {
  const [, noun, name = '', verb] = path.split('/')
  if (noun === 'mags-url-aliases') {
    if (method === 'POST') sendJson(response, 201, { ...alias, ...body })
    else if (method === 'GET') sendJson(response, 200, { aliases: [alias, { ...alias, domain: 'x.example', url: null }], ...page })
    else if (name === 'blog') sendJson(response, 200, { success: true, message: 'Alias removed' })
    else sendJson(response, 404, { error: `no alias "${name}"`, code: 'not_found' })
    return true
  }
  if (noun !== 'mags-cron') return false
  if (method === 'POST' && name === '') {
    if (body.schedule === 'bad') sendJson(response, 400, { error: 'schedule: must be five fields', code: 'bad_request' })
    else sendJson(response, 201, { ...nightly, ...body, next_run_at: body.enabled === false ? null : dueAt })
  } else if (verb === 'run') {
    const status = name === 'nightly' ? 'running' : name
    sendJson(response, 202, {
      ...noJob,
      cause: 'manual',
      status,
      request_id: status === 'running' ? 'job-1' : null,
      reason: status === 'running' ? null : 'because',
    })
  } else if (verb === 'runs') sendJson(response, 200, { runs: runRows, ...page })
  else if (name === '') sendJson(response, 200, { crons: [nightly, broken], ...page })
  else if (method === 'PATCH') sendJson(response, 200, { ...nightly, ...body, next_run_at: body.enabled ? dueAt : null })
  else if (method === 'DELETE') sendJson(response, 200, { success: true, message: 'Cron removed' })
  else sendJson(response, 200, nightly)
  return true
}

let home: Awaited<ReturnType<typeof newHome>>
let server: FakeServer
beforeAll(async () => {
  buildCli()
  home = await newHome()
  await mkdir(join(home.path, '.mags'))
})
beforeEach(async () => {
  await server?.[Symbol.asyncDispose]()
  server = await new FakeServer({}).listen()
  server.intercept = answer
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await home[Symbol.asyncDispose]()
})

const mags = (...args: string[]) => runCli(args, { server, home: home.path })
const squeezed = (text: string) => text.split('\n').map((line) => line.replace(/ {2,}/g, '  '))

describe('mags cron add', () => {
  it('sends times, script and what run takes', async () => {
    const result = await mags('cron', 'add', '--name', 'nightly', '--schedule', '0 3 * * *', '-w', 'proj', 'make', 'all')
    expect(result).toEqual({ code: 0, stdout: `nightly runs next at ${dueAt}\n`, stderr: '' })
    const flags = ['--timezone', 'Europe/Berlin', '--overlap', 'queue', '--disabled', '--base', 'seed', '-t', '60', '--env', 'A=b', '--memory', '256', '--json']
    const json = await mags('cron', 'add', '-n', 'x', '-s', '@daily', ...flags, 'true')
    expect(JSON.parse(json.stdout)).toMatchObject({ name: 'x', next_run_at: null })
    expect(server.seen('POST', /^\/mags-cron$/).map(({ body }) => body)).toEqual([
      { name: 'nightly', schedule: '0 3 * * *', workspace_id: 'proj', script: 'make all' },
      {
        ...{ name: 'x', schedule: '@daily', timezone: 'Europe/Berlin', overlap: 'queue', enabled: false, base_workspace_id: 'seed' },
        ...{ timeout: 60, environment: { A: 'b' }, memory_mb: 256, script: 'true' },
      },
    ])
  })

  it('uploads files, and takes them back when it is refused', async () => {
    const file = join(home.path, 'a.csv')
    await writeFile(file, '1,2\n')
    await mags('cron', 'add', '-n', 'x', '-s', '@daily', '-f', file, 'true')
    expect(server.seen('POST', /^\/mags-cron$/)[0]?.body.file_ids).toEqual([...server.uploads.files.keys()])
    expect(await mags('cron', 'add', '-n', 'x', '-s', 'bad', '-f', file, 'true')).toEqual({
      code: 1,
      stdout: '',
      stderr: 'mags: --schedule: must be five fields\n',
    })
    expect(server.uploads.files.size).toBe(1)
  })

  it('refuses what is missing or does not go together', async () => {
    for (const [args, words] of [
      [['-s', '@daily', 'true'], '--name'],
      [['-n', 'x', 'true'], '--schedule'],
      [['-n', 'x', '-s', '@daily'], "No script. Give one as an argument (mags cron add … 'echo hello')"],
      [['-n', 'x', '-s', '@daily', '--overlap', 'kill', 'true'], 'skip, queue, allow'],
      [['-n', 'x', '-s', '@daily', '--no-sleep', 'true'], '--persistent'],
    ] as const)
      expect(await mags('cron', 'add', ...args)).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining(words) })
    expect(server.requests).toEqual([])
  })
})

describe('mags cron', () => {
  it('lists crons and runs', async () => {
    expect(squeezed((await mags('cron', 'list')).stdout)).toEqual([
      'NAME  SCHEDULE  ZONE  NEXT RUN  LAST RUN',
      `nightly  0 3 * * *  UTC  ${dueAt}  error ${dueAt}`,
      'broken  0 3 * * *  UTC  schedule: is no more  -',
      '',
    ])
    expect(squeezed((await mags('cron', 'runs', 'nightly', '--page', '2')).stdout)).toEqual([
      'DUE  WHY  STATUS  EXIT  JOB OR REASON',
      `${dueAt}  manual  waiting  -  the run before is not over`,
      `${dueAt}  catch up  error  3  job-2`,
      `${dueAt}  schedule  skipped  -  evil \ufffd[2J words`,
      '',
    ])
    expect(server.seen('GET', /runs$/)[0]?.query.toString()).toBe('page=2')
    for (const args of [['list'], ['runs', 'nightly']]) expect(JSON.parse((await mags('cron', ...args, '--json')).stdout)).toMatchObject(page)
  })

  it('enables, disables and removes', async () => {
    expect(await mags('cron', 'disable', 'nightly')).toEqual({ code: 0, stdout: 'nightly is disabled\n', stderr: '' })
    expect(await mags('cron', 'enable', 'nightly')).toEqual({ code: 0, stdout: `nightly runs next at ${dueAt}\n`, stderr: '' })
    expect(await mags('cron', 'remove', 'nightly')).toEqual({ code: 0, stdout: 'Cron removed\n', stderr: '' })
    expect(server.seen('PATCH', /nightly$/).map(({ body }) => body)).toEqual([{ enabled: false }, { enabled: true }])
    for (const verb of ['enable', 'disable', 'remove']) expect(JSON.parse((await mags('cron', verb, 'nightly', '--json')).stdout)).toBeTypeOf('object')
  })

  it('runs one now, and says why when it does not', async () => {
    expect(await mags('cron', 'run', 'nightly')).toEqual({ code: 0, stdout: 'job-1\n', stderr: '' })
    expect(await mags('cron', 'run', 'waiting')).toEqual({ code: 0, stdout: '', stderr: 'mags: the run waits: because\n' })
    expect(await mags('cron', 'run', 'skipped')).toEqual({ code: 1, stdout: '', stderr: 'mags: the run was skipped: because\n' })
    const failed = await mags('cron', 'run', 'failed', '--json')
    expect(failed).toMatchObject({ code: 1, stderr: '' })
    expect(JSON.parse(failed.stdout)).toMatchObject({ status: 'failed', reason: 'because' })
  })
})

describe('mags url alias', () => {
  it('makes, lists and removes', async () => {
    expect(await mags('url', 'alias', 'blog', 'web', '--domain', 'blog.example.com')).toEqual({ code: 0, stdout: 'http://blog.apps.localhost\n', stderr: '' })
    expect(server.seen('POST', /aliases$/)[0]?.body).toEqual({ subdomain: 'blog', workspace_id: 'web', domain: 'blog.example.com' })
    expect(squeezed((await mags('url', 'alias', 'list')).stdout)).toEqual([
      'SUBDOMAIN  WORKSPACE  DOMAIN  URL  CREATED',
      `blog  web  -  http://blog.apps.localhost  ${dueAt}`,
      `blog  web  x.example  -  ${dueAt}`,
      '',
    ])
    expect(await mags('url', 'alias', 'remove', 'blog')).toEqual({ code: 0, stdout: 'Alias removed\n', stderr: '' })
    expect(await mags('url', 'alias', 'remove', 'nope')).toMatchObject({ code: 1, stderr: 'mags: no alias "nope"\n' })
    for (const args of [['blog', 'web'], ['list'], ['remove', 'blog']])
      expect(JSON.parse((await mags('url', 'alias', ...args, '--json')).stdout)).toBeTypeOf('object')
  })

  it('needs both names', async () => {
    for (const args of [[], ['blog'], ['blog', 'web@3'], ['blog', 'web', 'more'], ['remove']])
      expect(await mags('url', 'alias', ...args)).toMatchObject({ code: 2, stdout: '' })
    expect(server.requests).toEqual([])
  })
})
