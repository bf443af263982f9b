import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type DaemonPlace, makePlace, startDaemon, type TestDaemon } from '../kit/daemon.ts'
import { describeLane } from '../kit/describe-lane.ts'
import { leftOf } from '../kit/leaks.ts'
import { canTest, notRoot } from '../kit/require.ts'
import { canTestS3, startS3Server, type TestS3Server } from '../kit/s3-server.ts'
import { s3Environment } from '../kit/store-environment.ts'
import { ApiFailure, WorkspaceClient } from '../kit/workspace-client.ts'

/** A bit of everything a file system can hold; `show` prints what is there, the same way each time. */
const make = `set -e
mkdir -p /root/w/deep/er "/root/w/with space" && cd /root/w
echo one > file; ln file hard; ln -s file soft; ln -s /etc/shadow away; mkfifo pipe
printf 'caf\\303\\251' > "$(printf 'na\\377me')"; truncate -s 50M sparse; echo end >> sparse
echo '#!/bin/sh' > setuid; chmod 4755 setuid; chown 1000:1000 "with space"; chmod 700 "with space"
rm -rf /usr/share/base-files; rm /etc/debian_version; mkdir /etc/apt/apt.conf.d/new; echo 'x' >> /etc/hostname.own
rm -rf /etc/skel && mkdir /etc/skel && echo opaque > /etc/skel/only
touch -d '2001-02-03 04:05:06.123456789' file`
const show = `cd /root/w && find . /etc/skel /etc/apt/apt.conf.d /usr/share/base-files /etc/debian_version -printf '%p %y %m %U:%G %s %n %l %T@\\n' 2>/dev/null | grep -av '^./deep ' | LC_ALL=C sort && cat file soft && tail -c 4 sparse && du -k sparse | cut -f1`

const walls = ['container', 'vm'] as const
const stores = ['folder', 's3'] as const
/** A store is behind the host, which reads it the same way for both walls: for the second one only what crosses all of it, and everything with MAGS_LONG=1. */
const long = process.env.MAGS_LONG === '1'

function testWorkspaces(isolation: (typeof walls)[number], store: (typeof stores)[number]) {
  const all = long || isolation === 'container' || store === 'folder'
  let place: DaemonPlace & AsyncDisposable
  let daemon: TestDaemon
  let client: WorkspaceClient
  let server: TestS3Server | undefined
  let environment: Record<string, string>

  const start = async () => {
    daemon = await startDaemon(environment, place)
    client = new WorkspaceClient(daemon)
  }

  beforeAll(async () => {
    server = store === 's3' ? await startS3Server() : undefined
    environment = { MAGS_ISOLATION: isolation, MAGS_POOL_MIN: '2', ...(server === undefined ? {} : await s3Environment(server)) }
    place = await makePlace()
    await start()
  }, 240_000)

  afterAll(async () => {
    await daemon.stop()
    const left = leftOf(daemon)
    await place[Symbol.asyncDispose]()
    await server?.[Symbol.asyncDispose]()
    expect(left).toEqual([])
  }, 120_000)

  it.runIf(all)('without a workspace nothing is kept', async () => {
    expect(await client.run('echo kept > /root/kept; cat /root/kept')).toMatchObject({ status: 'completed', stdout: 'kept\n' })
    expect(await client.run('cat /root/kept')).toMatchObject({ status: 'error', exitCode: 1 })
  })

  it('a workspace has in the next run what the last left, byte for byte, of a failed one too', async () => {
    const first = await client.run(`${make}; ${show}`, { workspace_id: 'all' })
    expect(first).toMatchObject({ status: 'completed', version: 1 })
    const second = await client.run(`${show}; exit 3`, { workspace_id: 'all' })
    expect(second).toMatchObject({ status: 'error', exitCode: 3 })
    expect(second.stdout).toBe(first.stdout)
    expect(first.stdout).toContain('981173106.1234567890')
    expect(first.stdout).not.toContain('debian_version')
    expect(first.stdout.split('\n').filter((line) => line.startsWith('/etc/skel'))).toHaveLength(2)
  }, 120_000)

  it.runIf(all)(
    'a base is a read-only start for any number of workers',
    async () => {
      await client.run('echo base > /root/base; rm /etc/debian_version', { workspace_id: 'base' })
      const workers = await Promise.all(
        Array.from({ length: 4 }, (_, n) =>
          client.run(`cat /root/base; echo ${n} > /root/base; test ! -e /etc/debian_version; cat /root/base`, { base_workspace_id: 'base' }),
        ),
      )
      expect(workers.map(({ status, stdout }) => [status, stdout])).toEqual([0, 1, 2, 3].map((n) => ['completed', `base\n${n}\n`]))
      expect(await client.run('cat /root/base', { workspace_id: 'base' })).toMatchObject({ stdout: 'base\n' })
    },
    60_000,
  )

  it('a fork starts from its base and goes its own way; forks of forks too', async () => {
    await client.run('echo first > /root/a; echo first > /root/b', { workspace_id: 'trunk' })
    expect(await client.run('cat /root/a; echo fork > /root/a; rm /root/b', { base_workspace_id: 'trunk', workspace_id: 'branch' })).toMatchObject({
      stdout: 'first\n',
    })
    await client.fork('branch', 'twig')
    expect(await client.run('cat /root/a; test ! -e /root/b && echo twig > /root/a', { workspace_id: 'twig' })).toMatchObject({
      status: 'completed',
      stdout: 'fork\n',
    })
    expect(await client.run('cat /root/a', { workspace_id: 'branch' })).toMatchObject({ stdout: 'fork\n' })
    expect(await client.run('cat /root/a /root/b; echo second > /root/a', { workspace_id: 'trunk' })).toMatchObject({ stdout: 'first\nfirst\n' })
    expect(await client.run('cat /root/a', { workspace_id: 'twig' })).toMatchObject({ stdout: 'twig\n' })
  }, 120_000)

  it.runIf(all)(
    'every save is a version to look at and go back to',
    async () => {
      for (const n of [1, 2, 3]) await client.run(`echo ${n} > /root/n; echo ${n} > /root/only-${n}`, { workspace_id: 'versions' })
      const { versions } = await client.call<{ versions: { version: number }[] }>('GET', 'mags-workspaces/versions/versions')
      expect(versions.map(({ version }) => version)).toEqual([3, 2, 1])
      const diff = await client.call<{ differences: { path: string; change: string; content?: string }[] }>(
        'GET',
        'mags-workspaces/versions/diff?from=1&to=3&content=true',
      )
      const changes = diff.differences.map(({ path, change }) => `${change} ${path}`)
      expect(changes).toEqual(expect.arrayContaining(['changed /root/n', 'added /root/only-2', 'added /root/only-3']))
      expect(diff.differences.find(({ path }) => path === '/root/n')?.content).toContain('-1\n+3\n')
      const first = await client.call<typeof diff>('GET', 'mags-workspaces/versions/diff?from=0&to=1')
      expect(first.differences.map(({ path, change }) => `${change} ${path}`)).toEqual(expect.arrayContaining(['added /root/n', 'added /root/only-1']))
      await client.call('POST', 'mags-workspaces/versions/restore', { version: 1 })
      expect(await client.run('cat /root/n; ls /root', { workspace_id: 'versions' })).toMatchObject({ stdout: '1\nn\nonly-1\n' })
    },
    60_000,
  )

  it.runIf(all)(
    'saves a running sandbox on request, and refuses a second holder',
    async () => {
      const id = await client.open({ workspace_id: 'held' })
      await client.exec(id, 'echo saved > /root/saved')
      const saved = await client.sync(id)
      expect(saved.bytes).toBeGreaterThan(0)
      expect(await client.sync(id)).toMatchObject({ bytes: 0, version: saved.version })
      await client.exec(id, 'echo unsaved > /root/unsaved')
      expect(await client.run('ls /root', { base_workspace_id: 'held' })).toMatchObject({ stdout: 'saved\n' })
      const refused = await client.submit({ script: 'exit 0', workspace_id: 'held' }).catch((error: unknown) => error)
      expect(refused).toBeInstanceOf(ApiFailure)
      expect(refused).toMatchObject({ status: 500, body: { code: 'workspace_in_use' } })
      expect((refused as ApiFailure).body.error).toBe(
        `workspace 'held' is already in use by job ${id} (status: running); use 'mags exec held <command>' to run commands on it, or 'mags ssh held' to connect interactively`,
      )
      await client.stop(id)
      expect(await client.run('cat /root/saved /root/unsaved', { workspace_id: 'held' })).toMatchObject({ stdout: 'saved\nunsaved\n' })
    },
    60_000,
  )

  it('a persistent sandbox goes on with its workspace after the server was killed', async () => {
    const id = await client.open({ workspace_id: 'lasting' })
    await client.exec(id, 'echo before > /root/before')
    await client.sync(id)
    await client.exec(id, 'echo between > /root/between')
    await daemon.crash()
    await start()
    await client.exec(id, 'cat /root/before /root/between; echo after > /root/after')
    await client.sync(id)
    await client.stop(id)
    expect(await client.run('cd /root; cat before between after', { workspace_id: 'lasting' })).toMatchObject({ stdout: 'before\nbetween\nafter\n' })
  }, 120_000)

  it('a machine that has only records and object store runs it', async () => {
    const before = await client.run(show, { workspace_id: 'all' })
    await daemon.stop()
    for (const name of ['layers', 'workspaces']) await rm(join(place.dataDir, name), { recursive: true })
    await start()
    expect(await client.run(show, { workspace_id: 'all' })).toMatchObject({ status: 'completed', error: null, stdout: before.stdout })
    expect(await client.run('cat /root/a', { base_workspace_id: 'branch' })).toMatchObject({ status: 'completed', error: null, stdout: 'fork\n' })
  }, 120_000)

  it.runIf(all)(
    'a full disk is the job’s own trouble, and a larger one has room',
    async () => {
      const fill = 'fallocate -l 1500M /root/big && echo fits'
      expect(await client.run(fill, { workspace_id: 'disk', disk_gb: 1 })).toMatchObject({ status: 'error', stdout: '' })
      expect(await client.run('rm /root/big; echo small > /root/small', { workspace_id: 'disk' })).toMatchObject({ status: 'completed' })
      expect(await client.run(`cat /root/small; ${fill}`, { workspace_id: 'disk', disk_gb: 3 })).toMatchObject({
        status: 'completed',
        stdout: 'small\nfits\n',
      })
      await client.run('rm /root/big', { workspace_id: 'disk' })
    },
    240_000,
  )

  it.runIf(all)(
    'removes a workspace with all that is stored of it',
    async () => {
      await client.run('echo gone > /root/gone', { workspace_id: 'gone' })
      await client.call('DELETE', 'mags-workspaces/gone')
      await expect(client.call('GET', 'mags-workspaces/gone')).rejects.toMatchObject({ status: 404 })
      expect(await client.run('ls /root', { workspace_id: 'gone' })).toMatchObject({ stdout: '', version: 1 })
    },
    60_000,
  )
}

for (const isolation of walls) {
  const required = isolation === 'container' ? 'MAGS_REQUIRE_CONTAINER' : 'MAGS_REQUIRE_VM'
  describeLane(`workspaces in a ${isolation}`, () => {
    describe.runIf(canTest(required, notRoot))('stored in a folder', () => testWorkspaces(isolation, 'folder'))
    describe.runIf(canTest(required, notRoot) && canTestS3())('stored in S3', () => testWorkspaces(isolation, 's3'))
  })
}
