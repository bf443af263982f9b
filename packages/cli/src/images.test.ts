import { mkdir, writeFile } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { readTar } from './archive/read-tar.ts'
import { eventText, FakeServer, type SeenRequest } from './testing/fake-server.ts'
import { buildCli, newHome, runCli, startCli } from './testing/run-cli.ts'
import { sendJson } from './testing/send-json.ts'
import { inParts } from './testing/tar-bytes.ts'

const createdAt = '2026-01-02T03:00:00.000Z'
const digest = `sha256:${'ab'.repeat(32)}`
const source = { kind: 'dockerfile', reference: 'Dockerfile', digest: null, command: ['nginx'] }
const image = {
  name: 'app',
  default: true,
  digest,
  versions: 2,
  os: 'Debian \u001b[2J 12',
  size_bytes: 163_000_000,
  created_at: createdAt,
  source,
  init: '/sbin/init',
}
const version = {
  ...{
    digest,
    current: true,
    os: 'Debian 12',
    size_bytes: 163_000_000,
    created_at: createdAt,
    source,
    init: null,
    environment: { A: 'b' },
    working_directory: '/srv',
  },
  used_by: { workspaces: ['proj'], jobs: ['job-1'], microvms: ['web'], other_accounts: 2 },
}
const task = {
  task_id: 't',
  name: 'app',
  kind: 'dockerfile',
  reference: 'Dockerfile',
  status: 'completed',
  digest,
  error: null,
  created_at: createdAt,
  completed_at: createdAt,
}
const row = (message: string, from: string) => ({ timestamp: createdAt, level: 'info', message, source: from })

/** What the task of a name comes to. */
let ends: typeof task | Record<string, unknown>
let waiting: ServerResponse | undefined

/** The image routes, from the contract. */
function answer({ method, path, query, body }: SeenRequest, response: ServerResponse): boolean {
  const [, noun, name = '', verb] = path.split('/')
  if (noun === 'images') {
    if (method === 'POST' && (body.recipe === 'nope' || query.get('name') === 'nope'))
      sendJson(response, 409, { error: 'image nope is being made', code: 'image_in_use' })
    else if (method === 'POST') sendJson(response, 202, { task_id: 't', status: 'running' })
    else if (method === 'PUT') sendJson(response, 200, { ...image, name: body.name })
    else if (method === 'DELETE' && name === 'used') sendJson(response, 409, { error: 'image used is in use by workspace proj', code: 'image_in_use' })
    else if (method === 'DELETE') sendJson(response, 200, { success: true, message: 'Image deleted' })
    else if (name === '') sendJson(response, 200, { images: [image], total: 3, page: 1, page_size: 1 })
    else sendJson(response, 200, { name, default: false, versions: [version], named_by: { jobs: ['j'], crons: ['nightly'] } })
    return true
  }
  if (noun === 'image-cache' && method === 'DELETE') {
    sendJson(response, 200, { success: true, message: 'Cache emptied', freed_bytes: 12_000_000 })
    return true
  }
  if (noun !== 'image-tasks') return false
  if (method === 'DELETE') {
    ends = { ...task, status: 'failed', digest: null, error: 'cancelled' }
    sendJson(response, 200, { success: true, message: 'Task cancelled' })
    waiting?.end(eventText('end', { status: 'failed', digest: null, error: 'cancelled' }))
  } else if (verb === 'events') {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write(eventText('log', row('line 1: RUN make', 'system'), '1.0') + eventText('log', row('compiling', 'stdout'), '2.0'))
    if (ends.status === 'running') waiting = response
    else response.end(eventText('end', { status: ends.status, digest: ends.digest, error: ends.error }))
  } else sendJson(response, 200, ends)
  return true
}

let home: Awaited<ReturnType<typeof newHome>>
let server: FakeServer
let folder: string
beforeAll(async () => {
  buildCli()
  home = await newHome()
  await mkdir(join(home.path, '.mags'))
  folder = join(home.path, 'app')
  await mkdir(join(folder, 'node_modules'), { recursive: true })
  await mkdir(join(folder, 'src'))
  for (const [name, content] of [
    ['Dockerfile', 'FROM debian-12\n'],
    ['Other', 'FROM x\n'],
    ['.dockerignore', 'node_modules\n*.log\n'],
    ['a.log', ''],
    ['node_modules/x', ''],
    ['src/main.c', 'main'],
  ] as const)
    await writeFile(join(folder, name), content)
  await writeFile(join(home.path, 'My Root.tar.gz'), 'archive')
  await mkdir(join(home.path, 'layout'))
  await writeFile(join(home.path, 'layout', 'oci-layout'), '{}')
})
beforeEach(async () => {
  await server?.[Symbol.asyncDispose]()
  server = await new FakeServer({}).listen()
  server.intercept = answer
  ends = task
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await home[Symbol.asyncDispose]()
})

const mags = (...args: string[]) => runCli(args, { server, home: home.path })
const sent = () => server.seen('POST', /^\/images$/)[0]

async function sentPaths(): Promise<string[]> {
  const paths: string[] = []
  for await (const entry of readTar(inParts(sent()?.bytes ?? Buffer.alloc(0)))) paths.push(entry.path)
  return paths
}

describe('mags image', () => {
  it('lists and shows, without steering the terminal', async () => {
    const list = await mags('image', 'list', '--page-size', '1')
    expect(list.stdout.split('\n')[1]).toBe(`app (default)  Debian \ufffd[2J 12  163 MB  sha256:abababababab  2         dockerfile Dockerfile  ${createdAt}`)
    expect(server.seen('GET', /^\/images$/)[0]?.query.get('page_size')).toBe('1')
    const { stdout } = await mags('image', 'inspect', 'app')
    expect(stdout).toContain('named by:   job j, cron nightly\n')
    expect(stdout).toContain(`digest:     ${digest} (newest)\n`)
    expect(stdout).toContain('used by:    workspace proj, job job-1, microVM web, 2 of other accounts\n')
    expect(stdout).toContain('command:    nginx\n')
    for (const args of [['list'], ['inspect', 'app']]) expect(JSON.parse((await mags('image', ...args, '--json')).stdout)).toBeTypeOf('object')
  })

  it('deletes when it may, and changes the default', async () => {
    expect(await mags('image', 'delete', 'app')).toMatchObject({ code: 2, stderr: expect.stringContaining('--yes says so beforehand') as string })
    expect(await mags('image', 'delete', 'app', '--yes', '--digest', digest)).toEqual({ code: 0, stdout: 'Image deleted\n', stderr: '' })
    expect(server.seen('DELETE', /^\/images\/app$/)[0]?.query.get('digest')).toBe(digest)
    expect(await mags('image', 'rm', 'used', '-y')).toEqual({ code: 1, stdout: '', stderr: 'mags: image used is in use by workspace proj\n' })
    expect(await mags('image', 'default', 'app')).toEqual({ code: 0, stdout: 'app is the default\n', stderr: '' })
    expect(await mags('image', 'prune')).toEqual({ code: 0, stdout: 'Cache emptied: 12.0 MB\n', stderr: '' })
  })
})

describe('mags image build', () => {
  it('packs a folder without what .dockerignore names, and shows how far it is', async () => {
    const result = await mags('image', 'build', folder, '--build-arg', 'A=1', '--build-arg', 'B=x y')
    expect(result).toEqual({ code: 0, stdout: `app ${digest}\n`, stderr: 'mags: line 1: RUN make\ncompiling\n' })
    const { query, headers } = sent() ?? { query: new URLSearchParams(), headers: {} }
    expect(Object.fromEntries(query)).toEqual({ name: 'app', dockerfile: 'Dockerfile', build_args: '{"A":"1","B":"x y"}' })
    expect(headers['content-type']).toBe('application/x-tar')
    expect(await sentPaths()).toEqual(['.dockerignore', 'Dockerfile', 'Other', 'src/', 'src/main.c'])
  })

  it('takes a Dockerfile by its path, another one of a folder, and a recipe', async () => {
    await mags('image', 'build', join(folder, 'Other'), '-n', 'x')
    await mags('image', 'build', folder, '-f', join(folder, 'Other'), '-n', 'y')
    await mags('image', 'build', 'ubuntu-22.04', '-n', 'jammy')
    await mags('image', 'build', 'alpine')
    await mags('image', 'build', folder, '--no-cache')
    const requests = server.seen('POST', /^\/images$/)
    expect(requests.map(({ query, body }) => ({ ...Object.fromEntries(query), ...body }))).toEqual([
      { name: 'x', dockerfile: 'Other' },
      { name: 'y', dockerfile: 'Other' },
      { name: 'jammy', recipe: 'ubuntu-22.04' },
      { name: 'alpine', recipe: 'alpine' },
      { name: 'app', dockerfile: 'Dockerfile', no_cache: 'true' },
    ])
  })

  it('ends with the words of what failed', async () => {
    ends = { ...task, status: 'failed', digest: null, error: 'Dockerfile line 2: RUN x: ended with exit code 1' }
    expect(await mags('image', 'build', folder)).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringMatching(/\nmags: Dockerfile line 2: RUN x: ended with exit code 1\n$/) as string,
    })
    const json = await mags('image', 'build', folder, '--json')
    expect(JSON.parse(json.stderr)).toMatchObject({ code: 'image_failed' })
    expect(await mags('image', 'build', 'nope')).toEqual({ code: 1, stdout: '', stderr: 'mags: image nope is being made\n' })
  })

  it('is cancelled by Ctrl-C', async () => {
    ends = { ...task, status: 'running' }
    const run = startCli(['image', 'build', folder], { server, home: home.path })
    await run.stderrHas('compiling')
    run.child.kill('SIGINT')
    expect(await run.ended).toMatchObject({ code: 130, stderr: expect.stringContaining('cancelling') as string })
    expect(server.seen('DELETE', /^\/image-tasks\/t$/)).toHaveLength(1)
  })

  it('refuses what is not there or does not go together', async () => {
    for (const [args, words] of [
      [['build', './nope'], 'There is no ./nope'],
      [['build', 'recipe', '--file', 'x'], 'There is no recipe'],
      [['build', 'recipe', '--no-cache'], '--no-cache goes with a Dockerfile'],
      [['build', folder, '--file', '/etc/hostname'], 'is not in'],
      [['build', folder, '--file', 'Dockerfile'], `a path as seen from here: ${join(folder, 'Dockerfile')}`],
      [['build', join(folder, 'Dockerfile'), '--file', 'x'], '--file goes with a folder'],
      [['build', 'alpine', '--build-arg', 'A=1'], '--build-arg goes with a Dockerfile'],
      [['build', folder, '-n', 'Bad Name'], '--name'],
      [['import', home.path], 'is a folder without an OCI layout'],
      [['import', 'gone.tar.gz'], 'There is no gone.tar.gz'],
      [['import', join(home.path, 'My Root.tar.gz')], 'It needs a name'],
    ] as const)
      expect(await mags('image', ...args)).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining(words) as string })
    expect(server.requests).toEqual([])
  })
})

describe('mags image import', () => {
  it('sends an archive, a layout, or the name of one in a registry', async () => {
    expect(await mags('image', 'import', join(home.path, 'My Root.tar.gz'), '-n', 'mine')).toMatchObject({ code: 0, stdout: `app ${digest}\n` })
    expect(sent()?.bytes.toString()).toBe('archive')
    expect(JSON.parse((await mags('image', 'import', join(home.path, 'layout'), '--json')).stdout)).toMatchObject({ digest })
    await mags('image', 'import', 'docker.io/library/Alpine:3.20')
    await mags('image', 'import', `ghcr.io/x/tool@${digest}`)
    const [file, layout, tagged, pinned] = server.seen('POST', /^\/images$/)
    expect(Object.fromEntries(file?.query ?? [])).toEqual({ name: 'mine', reference: 'My Root.tar.gz' })
    expect(layout?.query.get('name')).toBe('layout')
    expect(tagged?.body).toEqual({ name: 'alpine', reference: 'docker.io/library/Alpine:3.20' })
    expect(pinned?.body).toEqual({ name: 'tool', reference: `ghcr.io/x/tool@${digest}` })
  })
})
