import { once } from 'node:events'
import { join } from 'node:path'
import { generateSshKey } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { openDatabase } from '../state/database.ts'
import { onlySandbox, resting, running, type SleepServer, startSleepServer } from '../testing/sleep-server.ts'

const find = (mags: SleepServer, host: string) => mags.server.directory.findByHost(host)
const withoutComment = (publicKey: string) => publicKey.split(' ').slice(0, 2).join(' ')

/** The public half is in the file as it is: behind the four fields of PROTOCOL.key before it. */
function publicKeyOf(pem: string): string {
  const blob = Buffer.from(pem.split('\n').slice(1, -2).join(''), 'base64')
  const start = blob.indexOf('ssh-ed25519') - 4
  return `ssh-ed25519 ${blob.subarray(start, start + 51).toString('base64')}`
}

describe('a host name', () => {
  it('means a job by its subdomain and by how its request id begins', async () => {
    await using mags = await startSleepServer()
    const id = await running(mags, { script: 'wait', persistent: true, name: 'n', port: 3000 })
    const { subdomain } = await mags.status(id)
    const target = { requestId: id, name: 'n', port: 3000, visibility: 'public', state: 'running', startedAt: expect.any(Number) }
    for (const label of [subdomain, id.slice(0, 12), id.replaceAll('-', '').slice(0, 12)]) expect(await find(mags, `${label}.apps.localhost`)).toEqual(target)
    await mags.call('POST', `/mags-jobs/${id}/sleep`)
    expect(await find(mags, `${subdomain}.apps.localhost`)).toMatchObject({ state: 'sleeping' })
    expect(onlySandbox(mags).wakes).toBe(0)
    await mags.call('POST', `/mags-jobs/${id}/stop`)
    expect(await find(mags, `${subdomain}.apps.localhost`)).toMatchObject({ requestId: id, state: 'over' })
  })

  it('means the newest job of a workspace', async () => {
    await using mags = await startSleepServer()
    const first = await resting(mags, { workspace_id: 'w' })
    const { subdomain } = await mags.status(first)
    const host = `${subdomain}.apps.localhost`
    expect(await find(mags, host)).toMatchObject({ requestId: first, state: 'running' })
    await mags.call('POST', `/mags-jobs/${first}/stop`)
    expect(await find(mags, host)).toMatchObject({ requestId: first, state: 'over' })
    const second = await resting(mags, { workspace_id: 'w' })
    expect(await find(mags, host)).toMatchObject({ requestId: second, state: 'running' })
  })

  it('means a private job also before it is known here', async () => {
    await using mags = await startSleepServer()
    const first = await resting(mags, { workspace_id: 'w' })
    const host = `${(await mags.status(first)).subdomain}.apps.localhost`
    await mags.call('POST', `/mags-jobs/${first}/access`, { port: 3000, visibility: 'token' })
    await mags.call('POST', `/mags-jobs/${first}/stop`)
    expect(await find(mags, host)).toMatchObject({ state: 'over', visibility: 'public' })
    // As another server on the same database has just stored it.
    await using db = {
      database: await openDatabase({ kind: 'sqlite', path: join(mags.directory, 'mags.db') }),
      [Symbol.asyncDispose]: () => db.database.destroy(),
    }
    await db.database.updateTable('jobs').set({ status: 'pending' }).where('request_id', '=', first).execute()
    expect(await find(mags, host)).toMatchObject({ state: 'starting', visibility: 'token' })
  })

  it('means what an alias stands for', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags, { workspace_id: 'w' })
    expect(await find(mags, 'shop.apps.localhost')).toBeUndefined()
    expect((await mags.call('POST', '/mags-url-aliases', { subdomain: 'shop', workspace_id: 'w' })).status).toBeLessThan(300)
    expect(await find(mags, 'shop.apps.localhost')).toMatchObject({ requestId: id })
    expect(await find(mags, 'shop.example.org')).toBeUndefined()
  })

  it.each([
    '',
    '.',
    'apps.localhost',
    '.apps.localhost',
    'x.SUB.apps.localhost',
    'SUB.apps.localhost.evil.org',
    'SUBapps.localhost',
    'SUB..apps.localhost',
    '-SUB.apps.localhost',
    'SUB_.apps.localhost',
    'SUB%00.apps.localhost',
    "SUB' or 1=1.apps.localhost",
    `${'a'.repeat(64)}.apps.localhost`,
    `${'a.'.repeat(200)}apps.localhost`,
    'localhost',
    '127.0.0.1',
    'SUB',
    'aaaaaaaaaaaa.apps.localhost',
  ])('means nothing: %j', async (text) => {
    await using mags = await startSleepServer()
    const { subdomain } = await mags.status(await resting(mags))
    expect(await find(mags, text.replace('SUB', subdomain))).toBeUndefined()
  })
})

describe('a lease', () => {
  it('waits for the start, and carries the environment of the job', async () => {
    const gate = Promise.withResolvers<void>()
    await using mags = await startSleepServer({ beforeRun: () => gate.promise })
    const id = await mags.submit({ script: 'wait', persistent: true, environment: { A: 'job', B: 'job' } })
    const { subdomain } = await mags.status(id)
    expect(await find(mags, `${subdomain}.apps.localhost`)).toMatchObject({ state: 'starting', startedAt: null })
    const opening = mags.server.directory.open(id, 'ssh')
    gate.resolve()
    using lease = await opening
    const output: string[] = []
    const program = lease.start({ kind: 'command', command: ['sh', '-c', 'env A\nenv B'], environment: { B: 'own' } }, (_source, bytes) => {
      output.push(Buffer.from(bytes).toString())
    })
    expect(await program.exit).toMatchObject({ exitCode: 0 })
    expect(output.join('')).toBe('job\nown\n')
    onlySandbox(mags).servers.set(8080, (socket) => socket.end('hello'))
    const socket = await lease.connect(8080)
    expect(String((await once(socket, 'data'))[0])).toBe('hello')
    await expect(lease.connect(8081)).rejects.toMatchObject({ code: 'not_listening' })
    await mags.call('POST', `/mags-jobs/${id}/stop`)
    await lease.gone
  })

  it('is refused for what does not stay, is ending, or over', async () => {
    await using mags = await startSleepServer()
    const { directory } = mags.server
    const passing = await running(mags, { script: 'wait', name: 'n' })
    await expect(directory.open(passing, 'http')).rejects.toMatchObject({ code: 'job_not_running', message: expect.stringContaining('not persistent') })
    const lasting = await resting(mags)
    await mags.call('POST', `/mags-jobs/${lasting}/stop`)
    await expect(directory.open(lasting, 'http')).rejects.toMatchObject({ code: 'job_not_running' })
    await expect(directory.open('none', 'http')).rejects.toMatchObject({ code: 'job_not_running' })
  })

  it('ends its waiting when the job ends before its start', async () => {
    await using mags = await startSleepServer()
    const arrived = Promise.withResolvers<void>()
    mags.beforeAcquire = (_spec, abort) => {
      arrived.resolve()
      return new Promise((_resolve, reject) => abort?.addEventListener('abort', () => reject(abort.reason)))
    }
    const id = await mags.submit({ script: 'wait', persistent: true })
    const opening = expect(mags.server.directory.open(id, 'http')).rejects.toMatchObject({ code: 'job_not_running' })
    await arrived.promise
    await mags.call('POST', `/mags-jobs/${id}/stop`)
    await opening
  })
})

describe('who may', () => {
  it('open a job by SSH: who has its key, or one of its account', async () => {
    await using mags = await startSleepServer()
    const { directory } = mags.server
    const id = await resting(mags, { name: 'box', workspace_id: 'w' })
    const other = await resting(mags, { name: 'other' })
    const mine = withoutComment((await generateSshKey('')).publicKey)
    const stranger = withoutComment((await generateSshKey('')).publicKey)
    await mags.call('POST', `/mags-jobs/${id}/access`, { port: 22 })
    await mags.call('POST', '/mags-ssh-keys', { public_key: mine })
    expect([await directory.acceptsKey(id, mine), await directory.acceptsKey(id, stranger), await directory.acceptsKey('none', mine)]).toEqual([
      true,
      false,
      false,
    ])
    const { subdomain } = await mags.status(id)
    await mags.call('POST', '/mags-url-aliases', { subdomain: 'shop', workspace_id: 'w' })
    for (const user of ['box', 'w', 'shop', subdomain, id, id.slice(0, 12)]) expect(await directory.findBySshUser(user, mine)).toMatchObject({ requestId: id })
    for (const user of ['box', id]) expect(await directory.findBySshUser(user, stranger)).toBeUndefined()
    expect(await directory.findBySshUser('nobody', mine)).toBeUndefined()
    expect(await directory.findBySshUser('other', mine)).toMatchObject({ requestId: other })
  })

  it('open with the key of a job that job only', async () => {
    await using mags = await startSleepServer()
    const { directory } = mags.server
    const id = await resting(mags, { name: 'box' })
    await resting(mags, { name: 'other' })
    const { ssh_private_key: pem } = (await mags.call('POST', `/mags-jobs/${id}/access`, { port: 22 })).body
    const live = await directory.findBySshPort(40_000)
    expect(live).toMatchObject({ requestId: id })
    const key = publicKeyOf(String(pem))
    expect(await directory.acceptsKey(id, key)).toBe(true)
    expect(await directory.findBySshUser('box', key)).toMatchObject({ requestId: id })
    expect(await directory.findBySshUser('other', key)).toBeUndefined()
  })

  it('not draw a client to a job of theirs by adding its key', async () => {
    await using mags = await startSleepServer()
    const { directory, tokens } = mags.server
    const headers = { authorization: `Bearer ${await tokens.create('other')}` }
    await using db = {
      database: await openDatabase({ kind: 'sqlite', path: join(mags.directory, 'mags.db') }),
      [Symbol.asyncDispose]: () => db.database.destroy(),
    }
    await db.database.updateTable('tokens').set({ account_id: 'a' }).where('name', '=', 'other').execute()
    const { publicKey } = await generateSshKey('')
    const mine = await resting(mags, { name: 'box' })
    await mags.call('POST', '/mags-ssh-keys', { public_key: publicKey })
    await mags.call('POST', '/mags-ssh-keys', { public_key: publicKey }, headers)
    const theirs = await mags.call('POST', '/mags-jobs', { script: 'wait', persistent: true, name: 'box' }, headers)
    expect(theirs.status).toBe(202)
    // Whatever order a database would give them in.
    await db.database.updateTable('ssh_keys').set({ id: '0' }).where('account_id', '=', 'a').execute()
    expect(await directory.findBySshUser('box', withoutComment(publicKey))).toMatchObject({ requestId: mine })
    const lure = await mags.call('POST', '/mags-jobs', { script: 'wait', persistent: true, name: 'bix' }, headers)
    expect(lure.status).toBe(202)
    expect(await directory.findBySshUser('bix', withoutComment(publicKey))).toBeUndefined()
  })

  it('see a private URL: who has a token of the account', async () => {
    await using mags = await startSleepServer()
    const { directory } = mags.server
    const id = await resting(mags)
    expect([
      await directory.acceptsToken(id, mags.token),
      await directory.acceptsToken(id, 'mags_x'),
      await directory.acceptsToken('none', mags.token),
    ]).toEqual([true, false, false])
  })
})
