import { mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { readTar } from './archive/read-tar.ts'
import { type FakeScript, FakeServer } from './testing/fake-server.ts'
import { buildCli, newHome, runCli, startCli } from './testing/run-cli.ts'
import { inParts, tarBytes } from './testing/tar-bytes.ts'

const completed = { status: 'completed', exit_code: 0 }
const scripts: Readonly<Record<string, FakeScript>> = {
  fine: { rows: [{ message: 'out' }], end: completed, status: { workspace_id: 'proj', workspace_version: 4, workspace_bytes_uploaded: 12_300_000 } },
  unsaved: {
    rows: [{ message: 'restoring 4 of 326 MB', source: 'system' }],
    end: { status: 'error', exit_code: 0 },
    status: {
      workspace_id: 'proj',
      workspace_version: 4,
      workspace_unsaved_since: '2026-01-01T00:00:00.000Z',
      error: "workspace 'proj' could not be saved within 120 s",
    },
  },
}

const failed: FakeScript = { end: { status: 'error', exit_code: 3 }, status: { ...scripts.unsaved?.status } }

let home: Awaited<ReturnType<typeof newHome>>
let server: FakeServer

beforeAll(async () => {
  buildCli()
  home = await newHome()
  // The wall is explained once per machine.
  await mkdir(join(home.path, '.mags'))
  await writeFile(join(home.path, '.mags', 'container-isolation-told'), '')
})
beforeEach(async () => {
  await server?.[Symbol.asyncDispose]()
  server = await new FakeServer({ ...scripts, failed }).listen()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await home[Symbol.asyncDispose]()
})

const mags = (...args: string[]) => runCli(args, { server, home: home.path })
const submitted = () => server.seen('POST', /^\/mags-jobs$/).map(({ body }) => body)

describe('mags run with a workspace', () => {
  it('sends workspace, base and disk', async () => {
    expect(await mags('run', '-w', 'proj', '--base', 'seed', '--disk', '4', 'fine')).toMatchObject({ code: 0, stdout: 'out\n', stderr: '' })
    await mags('run', '--base', 'seed', '-e', 'fine')
    expect(submitted()).toEqual([
      { script: 'fine', workspace_id: 'proj', base_workspace_id: 'seed', disk_gb: 4 },
      { script: 'fine', base_workspace_id: 'seed' },
    ])
  })

  it('fails, and says why, when a script that ended well could not be saved', async () => {
    expect(await mags('run', '-w', 'proj', 'unsaved')).toEqual({
      code: 1,
      stdout: '',
      stderr: "mags: restoring 4 of 326 MB\nmags: workspace 'proj' could not be saved within 120 s\n",
    })
    expect(await mags('run', '-w', 'proj', 'failed')).toMatchObject({
      code: 3,
      stderr: expect.stringMatching(/^mags: workspace 'proj' is not saved since 2026/),
    })
  })

  it('refuses what does not go together, and names that are none', async () => {
    expect(await mags('run', '-e', '-w', 'proj', 'fine')).toMatchObject({ code: 2, stderr: expect.stringContaining('give one of them') })
    for (const flag of ['-w', '--base'])
      expect(await mags('run', flag, 'proj@3', 'fine')).toMatchObject({ code: 2, stderr: expect.stringContaining('without a version: proj') })
    expect(await mags('run', '-w', 'a/b', 'fine')).toMatchObject({ code: 2, stderr: expect.stringContaining('NAME or NAME@VERSION') })
    expect(server.requests).toEqual([])
  })
})

describe('mags run with files', () => {
  it('uploads them first and names them in the job', async () => {
    const [a, b] = [join(home.path, 'a.csv'), join(home.path, 'ü.bin')]
    await writeFile(a, '1,2\n')
    await writeFile(b, 'x')
    expect(await mags('run', '-f', a, '--file', b, 'fine')).toEqual({ code: 0, stdout: 'out\n', stderr: '' })
    const ids = submitted()[0]?.file_ids as string[]
    expect(ids.map((id) => server.uploads.files.get(id))).toEqual([
      { name: 'a.csv', content: '1,2\n' },
      { name: 'ü.bin', content: 'x' },
    ])
  })

  it('looks at all of them before the first goes out', async () => {
    const file = join(home.path, 'same')
    await writeFile(file, '')
    await mkdir(join(home.path, 'folder'), { recursive: true })
    await writeFile(join(home.path, 'folder', 'same'), '')
    for (const [path, words] of [
      [join(home.path, 'none'), 'none on this machine.'],
      [join(home.path, 'folder'), "is a folder. 'mags cp' copies folders"],
      [join(home.path, 'folder', 'same'), 'would both be /root/same'],
    ] as const) {
      expect(await mags('run', '-f', file, '-f', path, 'fine')).toMatchObject({ code: 2, stderr: expect.stringContaining(words) })
    }
    expect(server.requests).toEqual([])
  })

  it('leaves none behind when the job is refused, and when it is interrupted', async () => {
    const file = join(home.path, 'a.csv')
    await writeFile(file, '1,2\n')
    server.intercept = (request, response) => {
      if (request.path !== '/mags-jobs') return false
      response.writeHead(400, { 'content-type': 'application/json' }).end('{"error":"disk_gb: too much","code":"bad_request"}')
      return true
    }
    expect(await mags('run', '-f', file, 'fine')).toMatchObject({ code: 1, stderr: 'mags: --disk: too much\n' })
    expect(server.uploads.files.size).toBe(0)

    const second = Promise.withResolvers<void>()
    server.intercept = (request) => {
      if (!request.bytes.includes('filename="held"')) return false
      second.resolve()
      return true
    }
    const names = ['b', 'c', 'd', 'held']
    for (const name of names) await writeFile(join(home.path, name), name)
    const run = startCli(['run', ...names.flatMap((name) => ['-f', join(home.path, name)]), 'fine'], { server, home: home.path })
    await second.promise
    run.child.kill('SIGINT')
    expect(await run.ended).toMatchObject({ code: 130, stderr: '' })
    expect(server.seen('POST', /mags-files/).length).toBeGreaterThan(1)
    expect(server.seen('POST', /^\/mags-jobs$/)).toHaveLength(1)
  })
})

describe('mags workspace', () => {
  it('lists and shows them', async () => {
    const listed = await mags('workspace', 'list')
    expect(listed.stdout).toMatch(
      /^NAME +VERSION +SIZE +IN USE BY +SAVED\nproj +5 +326 MB +- +2026-01-02T00:00:00.000Z\nbehind +0 +326 MB +- +not saved since 2026-01-03T00:00:00.000Z\n$/,
    )
    expect(JSON.parse((await mags('workspace', 'list', '--json', '--page-size', '1')).stdout)).toMatchObject({
      total: 2,
      page_size: 1,
      workspaces: [{ workspace_id: 'proj' }],
    })
    expect((await mags('workspace', 'get', 'behind')).stdout).toMatch(/^version: +0 \(never saved\)$/m)
    expect((await mags('workspace', 'versions', 'proj')).stdout).toMatch(/^proj@5 +sync +326 MB +20000 +3.3 MB +debian-12 +2026/m)
    expect(await mags('workspace', 'get', 'nope')).toEqual({ code: 1, stdout: '', stderr: "mags: no workspace 'nope'\n" })
  })

  it('compares versions, with control characters made harmless', async () => {
    const { stdout, stderr } = await mags('workspace', 'diff', 'proj@3', 'proj@5', '--content', '--limit', '4')
    expect(stdout.split('\n').map((line) => line.replace(/ {2,}/g, '  '))).toEqual([
      'CHANGE  KIND  MODE  SIZE  PATH',
      'added  file  0644  1.2 kB  /root/new',
      'changed  file  0644 -> 0600  1.2 kB -> 900 B  /etc/motd',
      '@@ -1,1 +1,1 @@',
      '-hello',
      '+bye\ufffd',
      'removed  -  -  -  /usr/bin/perl',
      'removed  symlink  0777  -  /root/old',
      '',
    ])
    expect(stderr).toContain('more than 4 differences')
    await mags('workspace', 'diff', 'proj')
    await mags('workspace', 'diff', 'proj@3')
    expect(server.seen('GET', /diff$/).map(({ query }) => query.toString())).toEqual(['from=3&to=5&content=true&limit=4', '', 'from=3'])
    expect((await mags('workspace', 'diff', '--json', 'proj@5')).stdout).toBe('{"workspace_id":"proj","from":5,"to":5,"differences":[],"truncated":false}\n')
  })

  it('forks, restores, resizes and saves', async () => {
    expect((await mags('workspace', 'fork', 'proj@3', 'exp')).stdout).toBe('exp begins as proj@3 (326 MB, nothing copied)\n')
    await mags('workspace', 'fork', 'proj', 'exp')
    expect(server.seen('POST', /fork$/).map(({ body }) => body)).toEqual([{ workspace_id: 'exp', version: 3 }, { workspace_id: 'exp' }])
    expect((await mags('workspace', 'restore', 'proj@3')).stdout).toBe('proj@6 has the contents of proj@3\n')
    expect((await mags('resize', 'proj', '--disk', '8')).stdout).toBe('proj has a disk of 8 GB from its next start\n')
    await mags('run', '--detach', '-n', 'web', 'fine')
    expect((await mags('status', 'web')).stdout).toMatch(/^workspace: +proj@4 \(12.3 MB uploaded\)$/m)
    expect((await mags('sync', 'web')).stdout).toBe('saved web@5 (1.2 MB uploaded)\n')
    expect(JSON.parse((await mags('sync', 'web', '--json')).stdout)).toMatchObject({ version: 5 })
  })

  it('deletes only what was confirmed', async () => {
    expect(await mags('workspace', 'delete', 'proj')).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('--yes') })
    expect(server.requests).toEqual([])
    expect(await mags('workspace', 'delete', '--yes', 'proj')).toEqual({ code: 0, stdout: 'Workspace deleted\n', stderr: '' })
  })

  it('refuses wrong references by naming the form', async () => {
    for (const [args, words] of [
      [['fork', 'proj@', 'exp'], 'NAME or NAME@VERSION, such as proj or proj@3'],
      [['fork', 'proj@0', 'exp'], 'NAME@VERSION'],
      [['fork', 'proj', 'exp@2'], 'without a version: exp'],
      [['restore', 'proj'], 'must be NAME@VERSION, such as proj@3'],
      [['diff', 'proj@3', 'other@5'], 'versions of one workspace'],
      [['diff', 'proj', 'proj@5'], 'where two are compared'],
      [['delete', '--yes', 'proj@3'], 'without a version: proj'],
      [['get'], 'missing required argument'],
      [['frok'], 'unknown command'],
    ] as const) {
      expect(await mags('workspace', ...args)).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining(words) })
    }
    expect(await mags('resize', 'proj')).toMatchObject({ code: 2, stderr: expect.stringContaining('--disk') })
    expect(server.requests).toEqual([])
  })
})

describe('mags new', () => {
  it('starts a persistent job on the workspace of its name', async () => {
    expect((await mags('new', 'web', '--base', 'seed', '--disk', '4')).stdout).toBe('00000000-0000-4000-8000-000000000000\n')
    expect(submitted()).toEqual([{ script: 'true', name: 'web', workspace_id: 'web', base_workspace_id: 'seed', disk_gb: 4, persistent: true }])
  })
})

describe('mags new with flags', () => {
  it('takes what run takes of a sandbox', async () => {
    await mags('new', 'web', '--isolation', 'vm', '--memory', '1024', '--vcpus', '2', '--env', 'A=b', '--image', 'debian-12', '--no-sleep')
    expect(submitted()[0]).toMatchObject({ isolation: 'vm', memory_mb: 1024, vcpus: 2, environment: { A: 'b' }, image: 'debian-12', no_sleep: true })
  })
})

describe('mags files', () => {
  it('uploads, lists and deletes', async () => {
    const file = join(home.path, 'a.csv')
    await writeFile(file, '1,2\n')
    expect((await mags('files', 'upload', file)).stdout).toBe('file-1\n')
    expect((await mags('files', 'list')).stdout).toMatch(/^NAME +SIZE +ID +CREATED +LAST USED\na.csv +4 B +file-1 /)
    expect(JSON.parse((await mags('files', 'list', '--json')).stdout)).toMatchObject({ total: 1 })
    expect(await mags('files', 'delete', 'file-1')).toMatchObject({ code: 2 })
    expect((await mags('files', 'delete', '-y', 'file-1')).stdout).toBe('File deleted\n')
    expect(await mags('files', 'delete', '-y', 'file-1')).toMatchObject({ code: 1, stderr: "mags: no file 'file-1'\n" })
  })
})

describe('mags cp', () => {
  beforeEach(async () => {
    await mags('run', '--detach', '-n', 'web', 'fine')
  })

  async function newFolder() {
    const folder = await newHome()
    await mkdir(join(folder.path, 'data', 'sub'), { recursive: true })
    await writeFile(join(folder.path, 'data', 'sub', 'x'), 'ex', { mode: 0o755 })
    await symlink('sub/x', join(folder.path, 'data', 'link'))
    return folder
  }

  it('puts a file where cp would', async () => {
    await using folder = await newFolder()
    const file = join(folder.path, 'data/sub/x')
    server.files.folders.set('/srv', Buffer.alloc(0))
    for (const place of ['web:/srv', 'web:/new/', 'web:/srv/named', 'web:relative', 'web:']) expect((await mags('cp', file, place)).code).toBe(0)
    expect([...server.files.files.keys()].sort()).toEqual(['/new/x', '/root/relative', '/root/x', '/srv/named', '/srv/x'])
    expect(server.seen('PUT', /files$/)[0]?.query.get('mode')).toBe('0755')
    const [jobId] = new Set(server.seen('PUT', /files$/).map(({ path }) => path.split('/')[2]))
    expect(jobId).toBe('00000000-0000-4000-8000-000000000000')
  })

  it('sends a folder as an archive', async () => {
    await using folder = await newFolder()
    server.files.folders.set('/srv', Buffer.alloc(0))
    await mags('cp', join(folder.path, 'data'), 'web:/srv')
    await mags('cp', `${folder.path}/data/.`, 'web:/srv')
    const answer = JSON.parse((await mags('cp', '--json', join(folder.path, 'data/'), 'web:/new')).stdout)
    expect(answer).toMatchObject({ destination: '/new', skipped: [] })
    for (const path of ['/srv', '/srv/data', '/new']) {
      const entries = []
      for await (const entry of readTar(inParts(server.files.folders.get(path) ?? Buffer.alloc(0)))) entries.push(`${entry.type} ${entry.path}`)
      expect(entries).toEqual(['symlink link', 'directory sub/', 'file sub/x'])
    }
  })

  it('fetches a file with its permissions', async () => {
    await using folder = await newFolder()
    server.files.files.set('/root/out', Buffer.from([0xff, 0]))
    await mags('cp', 'web:/root/out', folder.path)
    await mags('cp', 'web:out', join(folder.path, 'named'))
    for (const name of ['out', 'named']) expect(await readFile(join(folder.path, name))).toEqual(Buffer.from([0xff, 0]))
    expect((await stat(join(folder.path, 'out'))).mode & 0o7777).toBe(0o750)
    expect(await mags('cp', 'web:out', join(folder.path, 'missing', 'x'))).toMatchObject({ code: 1, stderr: expect.stringContaining('failed on this machine') })
    expect(await mags('cp', 'web:out', join(folder.path, 'missing/'))).toMatchObject({ code: 2, stderr: expect.stringContaining('There is no folder') })
    expect(await mags('cp', 'web:/none', folder.path)).toMatchObject({ code: 1, stderr: 'mags: There is no /none in the sandbox.\n' })
    expect((await readdir(folder.path)).sort()).toEqual(['data', 'named', 'out'])
  })

  it('fetches a folder', async () => {
    await using folder = await newFolder()
    server.files.folders.set('/srv', tarBytes({ path: './', flag: '5' }, { path: './a/b', content: 'b' }, { path: './dev', flag: '4' }))
    const first = await mags('cp', 'web:/srv', folder.path)
    expect(first).toEqual({ code: 0, stdout: '', stderr: 'mags: left out, for they are neither files, folders nor links: dev\n' })
    await mags('cp', 'web:/srv', join(folder.path, 'named'))
    await mags('cp', 'web:/srv/.', folder.path)
    for (const path of ['srv/a/b', 'named/a/b', 'a/b']) expect(await readFile(join(folder.path, path), 'utf8')).toBe('b')
  })

  it('does not let a sandbox write outside of the folder', async () => {
    await using folder = await newFolder()
    server.files.folders.set('/srv', tarBytes({ path: 'out', flag: '2', target: folder.path }, { path: 'out/evil', content: 'x' }))
    expect(await mags('cp', 'web:/srv', join(folder.path, 'got'))).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('which is a link; that is refused'),
    })
    server.files.folders.set('/srv', tarBytes({ path: '../evil', content: 'x' }))
    expect(await mags('cp', '--json', 'web:/srv', join(folder.path, 'other'))).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('"code":"bad_archive"'),
    })
    expect((await readdir(folder.path)).sort()).toEqual(['data', 'got'])
  })

  it('refuses places that are none', async () => {
    for (const [args, words] of [
      [['a', 'b'], 'One side must be NAME:/PATH'],
      [['web:/a', 'web:/b'], 'Both sides are in a sandbox'],
      [['a b:/x', '.'], 'does not begin with the name or id of a job'],
      [['web:/', '.'], 'has no name of its own'],
      [['/nowhere/at/all', 'web:/x'], 'There is no /nowhere/at/all on this machine.'],
    ] as const) {
      server.files.folders.set('/', Buffer.alloc(0))
      expect(await mags('cp', ...args)).toMatchObject({ code: 2, stderr: expect.stringContaining(words) })
    }
    expect(await mags('cp', 'nope:/x', '.')).toMatchObject({ code: 1, stderr: "mags: no job 'nope'\n" })
  })

  it('ends on Ctrl-C and leaves no half file', async () => {
    await using folder = await newFolder()
    server.files.files.set('/big', Buffer.alloc(1))
    const begun = Promise.withResolvers<void>()
    server.intercept = (request, response) => {
      if (request.method !== 'GET' || !request.path.endsWith('/files')) return false
      response.writeHead(200)
      response.write('half', () => begun.resolve())
      return true
    }
    const run = startCli(['cp', 'web:/big', join(folder.path, 'big')], { server, home: home.path })
    await begun.promise
    run.child.kill('SIGINT')
    expect(await run.ended).toMatchObject({ code: 130, stderr: '' })
    expect(await readdir(folder.path)).toEqual(['data'])
  })
})
