import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { generateSshKey } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { FakeHost } from '../testing/fake-host.ts'
import { resting, running, type SleepServer, startSleepServer } from '../testing/sleep-server.ts'

const access = (mags: SleepServer, id: string, body: Record<string, unknown>) => mags.call('POST', `/mags-jobs/${id}/access`, body)
const sshPortOf = async (mags: SleepServer, id: string) => (await access(mags, id, { port: 22 })).body.ssh_port

describe('access to a port', () => {
  it('gives a URL', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags)
    const answer = await access(mags, id, { port: 3000 })
    const { subdomain } = await mags.status(id)
    expect(answer).toMatchObject({
      status: 200,
      body: {
        success: true,
        message: 'External access enabled',
        url: `http://${subdomain}.apps.localhost:4780`,
        subdomain,
        ipv6_address: null,
        port: 3000,
        visibility: 'public',
        access_type: 'http_proxy',
      },
      headers: { 'server-timing': expect.stringMatching(/^queue;dur=/) },
    })
    expect(await mags.status(id)).toMatchObject({ port: 3000, visibility: 'public', url: answer.body.url })
  })

  it('gives a port and a key for SSH', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags)
    const { status, body } = await access(mags, id, { port: 22 })
    expect({ status, body }).toMatchObject({
      status: 200,
      body: { success: true, message: 'SSH proxy enabled', ssh_host: 'ssh.example.org', ssh_port: 40_000, access_type: 'ssh_proxy' },
    })
    expect(body.ssh_private_key).toMatch(/^-----BEGIN OPENSSH PRIVATE KEY-----\n[\s\S]*-----END OPENSSH PRIVATE KEY-----\n$/)
    // The same again, and nothing of it in the database as it is.
    expect((await access(mags, id, { port: 22 })).body).toEqual(body)
    const [, line = ''] = String(body.ssh_private_key).split('\n')
    for (const name of ['mags.db', 'mags.db-wal']) expect(readFileSync(join(mags.directory, name), 'latin1')).not.toContain(line)
    expect(statSync(join(mags.directory, 'server.key')).mode & 0o777).toBe(0o600)
  })

  it.each([
    [{ port: 0 }, 'port: must be a whole number from 1 to 65,535'],
    [{ port: 65_536 }, 'port: must be a whole number from 1 to 65,535'],
    [{ port: 1.5 }, 'port: must be a whole number from 1 to 65,535'],
    [{ port: '80' }, 'port: must be a whole number from 1 to 65,535'],
    [{}, 'port: is required'],
    [{ port: 80, visibility: 'nobody' }, 'visibility: must be one of public, token'],
    [{ port: 22, visibility: 'token' }, 'visibility: is for the URL; SSH always needs a key'],
    [{ port: 80, ports: [] }, 'unknown member "ports"'],
  ])('refuses %j', async (body, error) => {
    await using mags = await startSleepServer()
    const id = await resting(mags)
    expect(await access(mags, id, body)).toMatchObject({ status: 400, body: { error } })
  })

  it('says which of the two fails, or both', async () => {
    await using mags = await startSleepServer()
    const passing = await running(mags, { script: 'wait', name: 'passing' })
    expect(await access(mags, passing, { port: 80 })).toMatchObject({
      status: 400,
      body: { error: 'job passing is not persistent: access needs a job submitted with persistent' },
    })
    await mags.call('POST', '/mags-jobs/passing/stop')
    expect((await access(mags, passing, { port: 80 })).body.error).toBe(
      'job passing is not persistent, and it is over (status: stopped): access needs a job submitted with persistent',
    )
    const lasting = await resting(mags, { name: 'lasting' })
    await mags.call('POST', '/mags-jobs/lasting/stop')
    expect((await access(mags, lasting, { port: 80 })).body).toMatchObject({
      code: 'job_not_running',
      error: 'job lasting is over (status: stopped): access needs one that runs or sleeps',
    })
  })

  it('says so for a job that waits', async () => {
    await using mags = await startSleepServer({ held: true })
    const id = await mags.submit({ script: 'wait', persistent: true, name: 'n' })
    expect((await access(mags, id, { port: 80 })).body).toMatchObject({
      code: 'job_not_running',
      error: 'job n has not started yet: access needs one that runs or sleeps; try again once its status is running',
    })
  })

  it('says so when the port of a job is taken', async () => {
    const portFailure = async (port: number) => (port === 40_000 ? 'EADDRINUSE' : undefined)
    await using mags = await startSleepServer({ deps: { ssh: { host: 'h', portFailure } } })
    expect((await access(mags, await resting(mags), { port: 22 })).body).toMatchObject({
      code: 'not_available',
      error: expect.stringMatching(/^port 40000 of the server, .* cannot be listened on \(EADDRINUSE\)/),
    })
    expect(await sshPortOf(mags, await resting(mags))).toBe(40_001)
  })

  it('says so when there is no gateway', async () => {
    await using mags = await startSleepServer({ deps: { appsUrl: () => undefined } })
    const id = await resting(mags)
    expect((await access(mags, id, { port: 80 })).body).toMatchObject({ code: 'not_available', error: 'this server has no gateway for URLs' })
  })

  it('keeps who may see the URL until that is changed', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags)
    expect((await access(mags, id, { port: 80, visibility: 'token' })).body).toMatchObject({ visibility: 'token' })
    expect((await access(mags, id, { port: 81 })).body).toMatchObject({ visibility: 'token' })
    expect(await mags.status(id)).toMatchObject({ visibility: 'token', port: 81 })
    expect((await mags.call('PATCH', `/mags-jobs/${id}`, { visibility: 'public', port: 82 })).status).toBe(200)
    expect(await mags.status(id)).toMatchObject({ visibility: 'public', port: 82 })
    const { subdomain } = await mags.status(id)
    expect(await mags.server.directory.findByHost(`${subdomain}.apps.localhost`)).toMatchObject({ visibility: 'public', port: 82 })
  })
})

describe('URL, SSH port and key', () => {
  it('stay those of the workspace from job to job, and over a restart', async () => {
    const host = new FakeHost()
    await using undo = new AsyncDisposableStack()
    undo.defer(() => host.close())
    const mags = undo.use(await startSleepServer({ host }))
    const first = await resting(mags, { workspace_id: 'w' })
    const ssh = (await access(mags, first, { port: 22 })).body
    const url = (await access(mags, first, { port: 80, visibility: 'token' })).body
    await mags.call('POST', `/mags-jobs/${first}/stop`)
    expect(await mags.server.directory.sshPorts()).toEqual([])
    // Nobody else gets the port meanwhile.
    const other = await resting(mags)
    expect(await sshPortOf(mags, other)).toBe(40_001)
    const changes: unknown[] = []
    mags.server.directory.onSshPort((port, open) => changes.push([port, open]))
    const second = await resting(mags, { workspace_id: 'w' })
    await expect.poll(() => changes, { timeout: 10_000 }).toEqual([[40_000, true]])
    expect(await mags.server.directory.findBySshPort(40_000)).toMatchObject({ requestId: second })
    expect(await mags.status(second)).toMatchObject({ url: url.url, subdomain: url.subdomain, visibility: 'token' })
    expect((await access(mags, second, { port: 22 })).body).toEqual(ssh)
    await mags.server.close()
    await using next = await startSleepServer({ host, deps: mags.deps })
    await expect.poll(async () => [...(await next.server.directory.sshPorts())].sort(), { timeout: 10_000 }).toEqual([40_000, 40_001])
    expect((await access(next, second, { port: 22 })).body).toEqual(ssh)
  })

  it('stay those of a job without a workspace over a restart', async () => {
    const host = new FakeHost()
    await using undo = new AsyncDisposableStack()
    undo.defer(() => host.close())
    const mags = undo.use(await startSleepServer({ host }))
    const id = await resting(mags)
    const ssh = (await access(mags, id, { port: 22 })).body
    await mags.call('POST', `/mags-jobs/${id}/sleep`)
    await mags.server.close()
    await using next = await startSleepServer({ host, deps: mags.deps })
    await expect.poll(() => next.server.directory.sshPorts(), { timeout: 10_000 }).toEqual([40_000])
    expect(await next.server.directory.findBySshPort(40_000)).toMatchObject({ requestId: id, state: 'sleeping' })
    expect((await access(next, id, { port: 22 })).body).toEqual(ssh)
  })

  it('are given back with the job, or with the workspace', async () => {
    await using mags = await startSleepServer()
    const alone = await resting(mags)
    const inWorkspace = await resting(mags, { workspace_id: 'w' })
    expect([await sshPortOf(mags, alone), await sshPortOf(mags, inWorkspace)]).toEqual([40_000, 40_001])
    const changes: unknown[] = []
    mags.server.directory.onSshPort((port, open) => changes.push([port, open]))
    await mags.call('POST', `/mags-jobs/${alone}/stop`)
    await mags.call('POST', `/mags-jobs/${inWorkspace}/stop`)
    await expect
      .poll(() => changes, { timeout: 10_000 })
      .toEqual([
        [40_000, false],
        [40_001, false],
      ])
    const next = await resting(mags)
    expect(await sshPortOf(mags, next)).toBe(40_000)
    expect(await sshPortOf(mags, await resting(mags))).toBe(40_002)
    await mags.call('DELETE', '/mags-workspaces/w')
    expect(await sshPortOf(mags, await resting(mags))).toBe(40_001)
  })

  it('are handed out once, also to those who ask at the same time', async () => {
    await using mags = await startSleepServer({ deps: { ssh: { host: 'h', portFirst: 50_000 } } })
    const ids = await Promise.all(Array.from({ length: 10 }, () => resting(mags)))
    const ports = await Promise.all([...ids, ...ids].map((id) => sshPortOf(mags, id)))
    expect(new Set(ports).size).toBe(10)
    expect(ports.slice(0, 10)).toEqual(ports.slice(10))
    expect([...new Set(ports)].sort()).toEqual(Array.from({ length: 10 }, (_, index) => 50_000 + index))
  })
})

describe('SSH keys of an account', () => {
  it('are added, listed and deleted', async () => {
    await using mags = await startSleepServer()
    const { publicKey } = await generateSshKey('laptop')
    const added = await mags.call('POST', '/mags-ssh-keys', { public_key: `  ${publicKey}\n` })
    expect(added).toMatchObject({
      status: 201,
      body: { id: expect.any(String), name: 'laptop', fingerprint: expect.stringMatching(/^SHA256:[A-Za-z0-9+/]{43}$/) },
    })
    expect(added.body.public_key).toBe(publicKey.replace(' laptop', ''))
    // The same key twice is one.
    expect((await mags.call('POST', '/mags-ssh-keys', { public_key: publicKey, name: 'other' })).body).toEqual(added.body)
    expect((await mags.call('GET', '/mags-ssh-keys')).body).toEqual({ keys: [added.body] })
    expect((await mags.call('DELETE', `/mags-ssh-keys/${added.body.id}`)).status).toBe(200)
    expect((await mags.call('DELETE', `/mags-ssh-keys/${added.body.id}`)).status).toBe(404)
    expect((await mags.call('GET', '/mags-ssh-keys')).body).toEqual({ keys: [] })
  })

  it.each([
    ['nonsense', 'public_key: must begin with one of ssh-ed25519, ecdsa-sha2-nistp256, ecdsa-sha2-nistp384, ecdsa-sha2-nistp521, ssh-rsa'],
    ['ssh-dss AAAAB3NzaC1kc3M=', 'public_key: must begin with one of'],
    ['command="x" ssh-ed25519 AAAA', 'public_key: must begin with one of'],
    ['ssh-ed25519 AAAA', 'public_key: is not a whole ssh-ed25519 key'],
    ['ssh-ed25519', 'public_key: is not a whole ssh-ed25519 key'],
    ['-----BEGIN OPENSSH PRIVATE KEY-----', 'public_key: is a private key'],
    ['ssh-ed25519 AAAA\nssh-ed25519 AAAA', 'public_key: must be one line'],
  ])('refuses %j', async (public_key, words) => {
    await using mags = await startSleepServer()
    expect(await mags.call('POST', '/mags-ssh-keys', { public_key })).toMatchObject({ status: 400, body: { error: expect.stringContaining(words) } })
  })

  it('are at most a hundred', async () => {
    await using mags = await startSleepServer()
    const keys = await Promise.all(Array.from({ length: 101 }, () => generateSshKey('')))
    const answers = await Promise.all(keys.map(({ publicKey }) => mags.call('POST', '/mags-ssh-keys', { public_key: publicKey })))
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(100)
    expect(answers.find(({ status }) => status === 400)?.body.error).toBe('at most 100 SSH keys; delete one that is not used any more')
  })
})
