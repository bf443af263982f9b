import { mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { eventText, FakeServer, type SeenRequest, sendJson } from './testing/fake-server.ts'
import { buildCli, newHome, runCli, startCli } from './testing/run-cli.ts'

const at = '2026-01-02T03:00:00.000Z'
const paging = { total: 9, page: 1, page_size: 3 }
const run = {
  id: 'r2',
  request_id: 'r2',
  job_id: 'j1',
  job_name: 'train',
  status: 'failed',
  started_at: at,
  completed_at: at,
  duration_ms: 1500,
  exit_code: 3,
  error: null,
}
const job = {
  id: 'j1',
  name: 'train',
  script: 'make\n',
  description: null,
  vcpus: 2,
  memory_mb: 512,
  environment: { A: 'b' },
  stateful: true,
  workspace_id: 'ws',
  created_at: at,
  updated_at: at,
}
const vmInfo = { vm_id: '3f2a90c1d2e4', agent_id: 'host', ip_address: '', ipv4_address: '', ipv6_address: '' }
const status = {
  request_id: 'r2',
  name: 'train',
  status: 'in_progress',
  exit_code: null,
  script_duration_ms: null,
  vm_info: vmInfo,
  proxy_url: null,
  error_message: null,
  attempt: 2,
  max_retries: 2,
  retry_at: at,
}
const revision = {
  id: 'v1',
  template_id: 't1',
  revision: 4,
  script: 'make\n',
  environment: {},
  comment: 'evil \u001b[2J words',
  created_at: at,
  created_by: 'k',
}
const template = {
  id: 't1',
  name: 'nightly',
  description: 'every night',
  default_vcpus: 2,
  default_memory_mb: 512,
  latest_revision: revision,
  created_at: at,
  updated_at: at,
}
const vm = {
  ...{
    id: '11111111-2222-4333-8444-555555555555',
    name: 'dev',
    status: 'running',
    cpu: 2,
    memory: 1024,
    disk: 10,
    image: 'debian-12',
    ip_address: '',
    ipv6_address: '',
  },
  ...{
    created_at: at,
    isolation: 'kvm',
    init: true,
    url: null,
    port: 8080,
    error: null,
    request_id: 'r9',
    image_digest: `sha256:${'a'.repeat(64)}`,
    started_at: at,
  },
}
const keyFile = `vm-${vm.id}-key.pem`
const privateKey = `-----BEGIN OPENSSH PRIVATE KEY-----\n${'A'.repeat(70)}\nAA==\n-----END OPENSSH PRIVATE KEY-----\n`
const connection = {
  ssh_command: `ssh -i ${keyFile} -p 40003 root@127.0.0.1`,
  ip_address: '',
  ipv6_address: '',
  key_generated: true,
  host: '127.0.0.1',
  port: 40_003,
  user: 'root',
  key_file: keyFile,
}

/** What GET of a microVM answers, in turn; the last one again and again. */
let states: string[] = []
/** What a stop could not save. */
let lost: string | null = null

function answerJobs({ method, path, query }: SeenRequest, response: ServerResponse): boolean {
  const [, , id = '', verb = ''] = path.split('/')
  if (method === 'POST' && id === '')
    sendJson(response, 202, { request_id: 'r1', status: 'accepted', message: 'ok', warnings: ['unknown member "x" was ignored'] })
  else if (id === 'gone') sendJson(response, 404, { error: "no job 'gone'", code: 'not_found' })
  else if (verb === 'run') sendJson(response, 202, run)
  else if (verb === 'runs') sendJson(response, 200, { runs: [run], ...paging })
  else if (verb === 'status') sendJson(response, 200, status)
  else if (verb === 'details') sendJson(response, 200, job)
  else if (verb === 'cancel') sendJson(response, 200, { success: true, message: 'Job cancelled', status: 'cancelled' })
  else if (verb === 'ssh') sendJson(response, 200, { exit_code: 5, stdout: 'out\n', stderr: 'err\n', duration_ms: 3, truncated: false })
  else if (method === 'DELETE') sendJson(response, 200, { success: true, message: 'Job deleted' })
  else if (id === '' && query.get('template_id') === 'unknown') sendJson(response, 200, { jobs: [], ...paging, total: 0 })
  else sendJson(response, 200, { jobs: [job], ...paging })
  return true
}

function answerTemplates({ method, path, body }: SeenRequest, response: ServerResponse): boolean {
  const [, , id = '', verb = ''] = path.split('/')
  if (method === 'POST' && id === '') sendJson(response, 201, { ...template, ...body })
  else if (verb === 'run') sendJson(response, 202, run)
  else if (verb === 'revisions') sendJson(response, 200, { revisions: [revision], ...paging })
  else if (method === 'DELETE') sendJson(response, 200, { success: true, message: 'Template deleted' })
  else if (id === '') sendJson(response, 200, { templates: [template], ...paging })
  else if (id === 'unknown' || id === 'deleted') sendJson(response, 404, { error: `no job template "${id}"`, code: 'not_found' })
  else sendJson(response, 200, template)
  return true
}

function answerMicrovms({ method, path }: SeenRequest, response: ServerResponse): boolean {
  const [, , id = '', verb = ''] = path.split('/')
  const state = () => (states.length > 1 ? states.shift() : states[0]) ?? 'running'
  if (method === 'POST' && id === '') sendJson(response, 201, { ...vm, status: 'creating', warnings: ['services do not start'] })
  else if (verb === 'ssh-connection') sendJson(response, 200, connection)
  else if (path.endsWith('/ssh-keys/download')) response.writeHead(200, { 'content-type': 'application/x-pem-file' }).end(privateKey)
  else if (method === 'POST') sendJson(response, 200, { success: true, status: verb === 'stop' ? 'stopping' : 'creating' })
  else if (method === 'DELETE') sendJson(response, 200, { success: true, message: 'MicroVM deleted' })
  else if (id === '') sendJson(response, 200, { microvms: [vm], ...paging })
  else {
    const now = state()
    sendJson(response, 200, { ...vm, status: now, error: now === 'error' ? 'no sandbox could be made' : lost })
  }
  return true
}

/** The routes of the Jobs API, from the contract. */
function answer(request: SeenRequest, response: ServerResponse): boolean {
  if (request.path.startsWith('/job-templates')) return answerTemplates(request, response)
  if (request.path.startsWith('/jobs')) return answerJobs(request, response)
  if (request.path.startsWith('/microvms')) return answerMicrovms(request, response)
  if (!request.path.startsWith('/mags-jobs/r')) return false
  const isFollow = request.query.get('follow') === 'true'
  const row = { timestamp: at, level: 'info', source: 'stdout', message: 'a line' }
  if (isFollow)
    response.writeHead(200, { 'content-type': 'text/event-stream' }).end(eventText('log', row, '1') + eventText('end', { status: 'error', exit_code: 3 }))
  else sendJson(response, 200, request.query.has('after') ? { logs: [], next: '1' } : { logs: [row], next: '1' })
  return true
}

let home: Awaited<ReturnType<typeof newHome>>
let server: FakeServer
beforeAll(async () => {
  buildCli()
  home = await newHome()
  await mkdir(join(home.path, 'bin'))
  await writeFile(join(home.path, 'bin/ssh'), '#!/bin/sh\nprintf "%s\\n" "$@"\nexit 7\n', { mode: 0o755 })
})
beforeEach(async () => {
  await server?.[Symbol.asyncDispose]()
  server = await new FakeServer({}).listen()
  server.intercept = answer
  states = ['running']
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await home[Symbol.asyncDispose]()
})

const mags = (...args: string[]) => runCli(args, { server, home: home.path, env: { PATH: `${join(home.path, 'bin')}:${process.env.PATH}` } })
const squeezed = (text: string) => text.split('\n').map((line) => line.replace(/ {2,}/g, '  '))
const bodies = (method: string, path: RegExp) => server.seen(method, path).map(({ body }) => body)

describe('mags job', () => {
  it('creates with what it is told, and prints the id', async () => {
    expect(await mags('job', 'create', '-n', 'train', 'make', 'all')).toEqual({
      code: 0,
      stdout: 'r1\n',
      stderr: 'mags: warning: unknown member "x" was ignored\n',
    })
    const flags =
      '--vcpus 4 --memory 256 --env A=b --stateful -w ws --workspace-size 3 -p --ip-lease --port 80 --image i --isolation vm -t 9 --retries 2 --backoff 7 --priority -5 --description d --allow a.example --deny b.example'
    expect(JSON.parse((await mags('job', 'create', '-n', 'x', ...flags.split(' '), '--json', 'true')).stdout)).toMatchObject({ request_id: 'r1' })
    expect(bodies('POST', /^\/jobs$/)).toEqual([
      { type: 'inline', name: 'train', script: 'make all' },
      {
        ...{
          type: 'inline',
          name: 'x',
          script: 'true',
          vcpus: 4,
          memory_mb: 256,
          environment: { A: 'b' },
          stateful: true,
          workspace_id: 'ws',
          workspace_size_gb: 3,
        },
        ...{
          persist: true,
          ip_lease: true,
          proxy_port: 80,
          image: 'i',
          isolation: 'vm',
          timeout: 9,
          max_retries: 2,
          retry_backoff_seconds: 7,
          priority: -5,
          description: 'd',
          egress: { allow: ['a.example'], deny: ['b.example'] },
        },
      },
    ])
  })

  it('refuses what is missing or does not go together', async () => {
    for (const [args, words] of [
      [['true'], '--name'],
      [['-n', 'x'], 'No script'],
      [['-n', 'x', '-w', 'ws', 'true'], '--stateful'],
      [['-n', 'x', '--workspace-size', '3', 'true'], '--stateful'],
      [['-n', 'x', '--retries', '11', 'true'], 'from 0 to 10'],
      [['-n', 'x', '--priority', '101', 'true'], '-100 to 100'],
    ] as const)
      expect(await mags('job', 'create', ...args)).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining(words) })
    expect(server.requests).toEqual([])
  })

  it('follows a run to its end and ends with its exit code', async () => {
    for (const args of [
      ['create', '-n', 'x', '-f', 'true'],
      ['run', 'j1', '-f'],
    ])
      expect(await mags('job', ...args)).toMatchObject({ code: 3, stdout: 'a line\n' })
    expect(await mags('job', 'logs', '-f', 'j1')).toMatchObject({ code: 0, stdout: 'a line\n' })
    expect(await mags('job', 'logs', 'j1')).toMatchObject({ code: 0, stdout: 'a line\n' })
  })

  it('runs again, lists, shows and cancels', async () => {
    expect(await mags('job', 'run', 'j1', '--env', 'A=c')).toEqual({ code: 0, stdout: 'r2\n', stderr: '' })
    expect(bodies('POST', /run$/)).toEqual([{ environment: { A: 'c' } }])
    expect(squeezed((await mags('job', 'list', '--template', 't1')).stdout)).toEqual([
      'NAME  SIZE  KEEPS  ID  CREATED',
      `train  2 × 512 MB  stateful  j1  ${at}`,
      '',
    ])
    expect(server.seen('GET', /^\/jobs$/)[0]?.query.get('template_id')).toBe('t1')
    expect(squeezed((await mags('job', 'runs', 'j1')).stdout)).toEqual(['STATUS  EXIT  TOOK  ID  STARTED', `failed  3  1500 ms  r2  ${at}`, ''])
    expect((await mags('job', 'show', 'j1')).stdout).toContain('workspace:  ws\n')
    expect((await mags('job', 'status', 'j1')).stdout).toContain(`status:     in progress\nattempt:    2 of 3, at ${at}\n`)
    expect(await mags('job', 'cancel', 'j1')).toEqual({ code: 0, stdout: 'Job cancelled\n', stderr: '' })
    expect(await mags('job', 'delete', 'j1')).toEqual({ code: 0, stdout: 'Job deleted\n', stderr: '' })
    for (const verb of ['list', 'show j1', 'status j1', 'runs j1', 'cancel j1', 'delete j1', 'run j1'])
      expect(JSON.parse((await mags('job', ...verb.split(' '), '--json')).stdout)).toBeTypeOf('object')
  })

  it('runs a command in it and ends as that does', async () => {
    expect(await mags('job', 'ssh', '-t', '9', 'j1', 'ls', '-l')).toEqual({ code: 5, stdout: 'out\n', stderr: 'err\n' })
    expect(bodies('POST', /ssh$/)).toEqual([{ command: 'ls -l', timeout_seconds: 9 }])
    expect(await mags('job', 'ssh', 'gone', 'true')).toMatchObject({ code: 1, stderr: "mags: no job 'gone'\n" })
  })
})

describe('mags template', () => {
  it('creates, changes and runs', async () => {
    expect(await mags('template', 'create', '-n', 'nightly', '--memory', '256', '-m', 'first', 'make')).toEqual({ code: 0, stdout: 't1\n', stderr: '' })
    expect(bodies('POST', /^\/job-templates$/)).toEqual([{ script_type: 'inline', name: 'nightly', memory_mb: 256, comment: 'first', script: 'make' }])
    expect(await mags('template', 'update', 't1', 'make', 'all')).toEqual({ code: 0, stdout: 'nightly is at revision 4\n', stderr: '' })
    expect(await mags('template', 'update', 't1', '--env', 'A=b')).toMatchObject({ code: 0 })
    expect(bodies('PUT', /t1$/)).toEqual([{ script: 'make all' }, { environment: { A: 'b' } }])
    expect(await mags('template', 'update', 't1')).toMatchObject({ code: 2, stderr: expect.stringContaining('Nothing to change') })
    expect(await mags('template', 'run', 't1', '-f')).toMatchObject({ code: 3, stdout: 'a line\n' })
  })

  it('lists, shows and deletes', async () => {
    expect(squeezed((await mags('template', 'list')).stdout)).toEqual(['NAME  REVISION  SIZE  ID  UPDATED', `nightly  4  2 × 512 MB  t1  ${at}`, ''])
    expect((await mags('template', 'revisions', 't1')).stdout).toContain('evil \ufffd[2J words')
    expect((await mags('template', 'show', 't1')).stdout).toContain('for:        every night\n')
    for (const verb of ['template history', 'job list --template']) {
      // By name or id, of a deleted one by its id.
      for (const id of ['nightly', 'deleted']) expect(await mags(...verb.split(' '), id)).toMatchObject({ code: 0, stdout: expect.stringContaining('train') })
      expect(await mags(...verb.split(' '), 'unknown')).toEqual({ code: 1, stdout: '', stderr: 'mags: no job template "unknown"\n' })
    }
    expect(server.seen('GET', /^\/jobs$/).map(({ query }) => query.get('template_id'))).toEqual(['t1', 'deleted', 'unknown', 't1', 'deleted', 'unknown'])
    expect(await mags('template', 'delete', 't1')).toEqual({ code: 0, stdout: 'Template deleted\n', stderr: '' })
  })
})

describe('mags vm', () => {
  it('creates and waits until it runs', async () => {
    states = ['creating', 'creating', 'running']
    const key = join(home.path, 'id.pub')
    await writeFile(key, 'ssh-ed25519 AAAA me\n')
    const flags = ['--cpu', '1', '--memory', '256', '--disk', '3', '--image', 'debian-12', '--key', key, '--isolation', 'vm']
    expect(await mags('vm', 'create', 'dev', ...flags)).toEqual({ code: 0, stdout: `${vm.id}\n`, stderr: 'mags: warning: services do not start\n' })
    expect(bodies('POST', /^\/microvms$/)).toEqual([
      { name: 'dev', cpu: 1, memory: 256, disk: 3, image: 'debian-12', isolation: 'vm', ssh_public_keys: ['ssh-ed25519 AAAA me'] },
    ])
    expect(states).toEqual(['running'])
    expect(await mags('vm', 'create', 'dev', '--key', '/none')).toMatchObject({ code: 2, stderr: expect.stringContaining('There is no /none') })
    expect(await mags('vm', 'create', 'dev@3')).toMatchObject({ code: 2, stderr: expect.stringContaining('The name of a microVM') })
    states = ['running']
    expect(await mags('vm', 'create', 'dev', '--isolation', 'auto', '--no-network')).toMatchObject({ code: 0 })
    expect(bodies('POST', /^\/microvms$/).at(-1)).toEqual({ name: 'dev', isolation: 'auto', egress: 'none' })
    states = ['creating', 'error']
    expect(await mags('vm', 'create', 'dev')).toMatchObject({ code: 1, stderr: expect.stringContaining('dev: no sandbox could be made') })
  })

  it('is left to itself by Ctrl-C', async () => {
    states = ['creating']
    const run = startCli(['vm', 'create', 'dev'], { server, home: home.path })
    await run.stderrHas('services do not start')
    run.child.kill('SIGINT')
    expect(await run.ended).toMatchObject({ code: 130, stderr: expect.stringContaining("dev is left to itself: 'mags vm show dev'") as string })
  })

  it('says of a stopped one how to start it', async () => {
    states = ['stopped']
    expect(await mags('vm', 'ssh', 'dev', 'ls')).toMatchObject({ code: 1, stderr: "mags: dev is stopped; 'mags vm start dev' starts it\n" })
  })

  it('starts, stops, restarts and deletes', async () => {
    states = ['stopping', 'stopped']
    expect(await mags('vm', 'stop', 'dev')).toEqual({ code: 0, stdout: 'dev is stopped\n', stderr: '' })
    lost = 'the workspace could not be saved'
    expect(await mags('vm', 'stop', 'dev')).toEqual({ code: 0, stdout: 'dev is stopped\n', stderr: 'mags: warning: the workspace could not be saved\n' })
    lost = null
    states = ['running']
    for (const verb of ['start', 'restart']) expect(await mags('vm', verb, 'dev')).toEqual({ code: 0, stdout: 'dev is running\n', stderr: '' })
    expect(await mags('vm', 'stop', 'dev', '--detach')).toEqual({ code: 0, stdout: 'dev is stopping\n', stderr: '' })
    expect(await mags('vm', 'delete', 'dev')).toMatchObject({ code: 2, stderr: expect.stringContaining('--yes') })
    expect(await mags('vm', 'delete', 'dev', '--yes')).toEqual({ code: 0, stdout: 'MicroVM deleted\n', stderr: '' })
    expect(squeezed((await mags('vm', 'list')).stdout)).toEqual([
      'NAME  STATUS  SIZE  IMAGE  ADDRESS  ID',
      `dev  running  2 vCPU, 1024 MB, 10 GB  debian-12  -  ${vm.id}`,
      '',
    ])
    expect((await mags('vm', 'show', 'dev')).stdout).toContain('console:    mags logs r9\n')
  })

  it('goes in by ssh, with a key that is downloaded once', async () => {
    for (let time = 0; time < 2; time += 1) {
      const { code, stdout } = await mags('vm', 'ssh', 'dev', 'ls', '-l')
      expect({ code, tail: stdout.split('\n').slice(-5, -1) }).toEqual({ code: 7, tail: ['--', '127.0.0.1', 'ls', '-l'] })
      expect(stdout).toContain(`IdentityFile="${join(home.path, '.mags/ssh', keyFile)}"`)
    }
    expect(server.seen('GET', /download$/)).toHaveLength(1)
    const file = join(home.path, '.mags/ssh', keyFile)
    expect(await readFile(file, 'utf8')).toBe(privateKey)
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    expect((await mags('vm', 'ssh', '--print', 'dev')).stdout).toBe(`${connection.ssh_command}\n`)
  })
})
