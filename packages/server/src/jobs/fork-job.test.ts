import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { MagsError } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { startPostgres, whyNoPostgres } from '../../../../tests/kit/postgres.ts'
import { Crash } from '../testing/crash.ts'
import type { FakeSandbox } from '../testing/fake-sandbox.ts'
import { lastsFor, onlySandbox, resting, running, type SleepServer, startSleepServer, systemRows } from '../testing/sleep-server.ts'

const until = <T>(probe: () => T) => expect.poll(probe, { timeout: 10_000, interval: 5 })
const fork = (mags: SleepServer, id: string, body: Record<string, unknown> = {}, headers: Record<string, string> = {}) =>
  mags.call('POST', `/mags-jobs/${id}/fork`, body, headers)
const idOf = ({ status, body }: Awaited<ReturnType<typeof fork>>) => {
  expect(status, JSON.stringify(body)).toBe(202)
  return String(body.request_id)
}
const reads = async (mags: SleepServer, id: string, path: string) => (await mags.call('POST', `/mags-jobs/${id}/exec`, { command: `read ${path}` })).body.stdout
const sandboxOf = async (mags: SleepServer, id: string): Promise<FakeSandbox> => {
  const sandbox = mags.host.sandboxes.get(String((await mags.status(id)).vm_id))
  if (sandbox === undefined) throw new Error('it has no sandbox')
  return sandbox
}
const total = async (mags: SleepServer) => (await mags.call('GET', '/mags-jobs')).body.total
const workspaceNames = async (mags: SleepServer) =>
  ((await mags.call('GET', '/mags-workspaces')).body.workspaces as { workspace_id: string }[]).map(({ workspace_id }) => workspace_id)
const logFile = (mags: SleepServer, id: string) => join(mags.deps.logsDir, id.slice(0, 2), `${id}.log`)
const egress = { allow: ['example.org'], deny: ['10.0.0.0/8'] }

describe('a fork', () => {
  it('of files is a job of its own, where the startup command runs', async () => {
    await using mags = await startSleepServer()
    const settings = { environment: { GREETING: 'hi' }, startup_command: 'env GREETING\nwait', no_sleep: true, port: 3000, egress, memory_mb: 256, disk_gb: 3 }
    const id = await resting(mags, { script: 'write /a one\necho out', name: 'web', ...settings })
    await mags.call('POST', `/mags-jobs/${id}/access`, { port: 3000, visibility: 'token' })
    const answer = await fork(mags, id)
    expect(answer.body).toEqual({ request_id: expect.any(String), status: 'accepted', message: 'Mags job forked successfully', with_memory: false })
    const copy = idOf(answer)
    const [source, forked] = [await mags.status(id), await mags.status(copy)]
    expect(forked).toMatchObject({
      name: 'web-fork',
      status: 'running',
      exit_code: null,
      forked_from: id,
      visibility: 'token',
      attach_duration_ms: expect.any(Number),
    })
    for (const name of ['image', 'vcpus', 'memory_mb', 'disk_gb', 'startup_command', 'no_sleep', 'port', 'egress', 'persistent'] as const)
      expect(forked[name], name).toEqual(source[name])
    for (const name of ['vm_id', 'subdomain', 'url'] as const) expect(forked[name], name).not.toBe(source[name])
    expect((await sandboxOf(mags, copy)).egress).toEqual(egress)
    expect(await reads(mags, copy, '/a')).toBe('one\n')
    await mags.call('POST', `/mags-jobs/${copy}/exec`, { command: 'write /a two' })
    expect(await reads(mags, id, '/a')).toBe('one\n')
    await until(() => systemRows(mags, copy)).toEqual([`forked from web (${id}); files only: its programs do not run here`, 'hi'])
    expect((await mags.rows(copy, '?source=stdout')).logs).toEqual([])
    await until(() => systemRows(mags, id)).toEqual([`forked into web-fork (${copy})`])
    expect(source.forked_from).toBe(null)
    // The next one needs another name, as does a copy of a copy.
    expect((await mags.status(idOf(await fork(mags, id)))).name).toMatch(/^web-fork-[0-9a-f]{6}$/)
    expect((await mags.status(idOf(await fork(mags, copy, { name: 'web' })))).name).toBe('web')
    await mags.call('POST', `/mags-jobs/${copy}/stop`)
    expect(await mags.status(copy)).toMatchObject({ status: 'stopped' })
    expect(await mags.status(id)).toMatchObject({ status: 'running' })
  })

  it('with memory has the script go on, its output in its own log from there on', async () => {
    await using mags = await startSleepServer()
    mags.host.forksMemory = true
    const id = await running(mags, { script: 'echo before\nwait', persistent: true, timeout: 1000 })
    await until(async () => (await mags.rows(id)).logs.length).toBe(1)
    const answer = await fork(mags, id, { name: 'copy' })
    expect(answer.body).toMatchObject({ with_memory: true })
    const copy = idOf(answer)
    const sandbox = await sandboxOf(mags, copy)
    await sandbox.write('stdout', 'after\n')
    expect((await mags.rows(copy)).logs.map(({ message }) => message)).toEqual([
      `forked from ${(await mags.status(id)).name} (${id}); its programs go on here`,
      'after',
    ])
    sandbox.end({ kind: 'exited', exitCode: 3 })
    await until(async () => (await mags.status(copy)).exit_code).toBe(3)
    expect(await mags.status(copy)).toMatchObject({ status: 'running' })
    expect(await mags.status(id)).toMatchObject({ status: 'running', exit_code: null })
    expect((await mags.rows(id, '?source=stdout')).logs.map(({ message }) => message)).toEqual(['before'])
  })

  it('of a script that ended has its exit code', async () => {
    await using mags = await startSleepServer()
    mags.host.forksMemory = true
    const copy = idOf(await fork(mags, await resting(mags)))
    await until(async () => (await mags.status(copy)).exit_code).toBe(0)
  })

  it('of what sleeps wakes it, and of one that was restarted is restarted, too', async () => {
    await using mags = await startSleepServer()
    mags.host.forksMemory = true
    const id = await resting(mags, { workspace_id: 'w', startup_command: 'echo started\nwait' })
    await mags.call('POST', `/mags-jobs/${id}/sleep`, { release: true })
    expect(await mags.status(id)).toMatchObject({ sleep_stage: 'released' })
    const copy = idOf(await fork(mags, id))
    expect(await mags.status(id)).toMatchObject({ status: 'running', wake_reason: 'request' })
    const sandbox = await sandboxOf(mags, copy)
    await sandbox.write('stdout', 'of the startup command\n')
    await until(async () => (await systemRows(mags, copy)).at(-1)).toBe('of the startup command')
    sandbox.end({ kind: 'exited', exitCode: 1 })
    await until(async () => (await systemRows(mags, copy)).at(-1)).toBe('the startup command ended with exit code 1')
    expect(await mags.status(copy)).toMatchObject({ status: 'running', exit_code: null })
  })

  it('with a workspace holds a new one, and saves all it has', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags, { script: 'write /a one', workspace_id: 'w' })
    const copy = idOf(await fork(mags, id, { workspace_id: 'w2' }))
    await until(async () => (await mags.status(copy)).workspace_version).toBe(1)
    expect(await mags.status(copy)).toMatchObject({ workspace_id: 'w2', base_workspace_id: 'w' })
    expect(await mags.call('POST', '/mags-jobs', { script: 'echo', workspace_id: 'w2' })).toMatchObject({ body: { code: 'workspace_in_use' } })
    await mags.call('POST', `/mags-jobs/${copy}/stop`)
    expect(
      (await mags.rows(await mags.ended(await mags.submit({ script: 'read /a', workspace_id: 'w2' })).then(({ request_id }) => request_id))).logs,
    ).toMatchObject([{ message: 'one' }])
  })

  it('is refused with words, and leaves nothing', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags, { workspace_id: 'w', name: 'web' })
    const passing = await running(mags, { script: 'wait', name: 'passing' })
    const over = await resting(mags, { name: 'over' })
    await mags.call('POST', `/mags-jobs/${over}/stop`)
    const refused = async (what: string, body: Record<string, unknown> = {}) => {
      const answer = await fork(mags, what, body)
      return [answer.status, answer.body.code, answer.body.error]
    }
    expect(await refused(passing)).toEqual([400, 'bad_request', 'job passing is not persistent: fork needs a job submitted with persistent'])
    expect(await refused(over)).toEqual([400, 'job_not_running', 'job over is over (status: stopped): fork needs one that runs or sleeps'])
    expect(await refused(id, { workspace_id: 'w' })).toEqual([409, 'already_exists', "workspace 'w' already exists; choose another name, or delete it first"])
    expect((await refused(id, { script: 'x' }))[0]).toBe(400)
    expect((await refused(id, { name: 'a b' }))[0]).toBe(400)
    expect((await refused('nobody'))[0]).toBe(404)
    const before = await total(mags)
    for (const fail of [
      () => (mags.host.beforeFork = () => Promise.reject(new MagsError('not_available', 'not here'))),
      () => {
        mags.host.beforeFork = () => undefined
        mags.host.beforeRun = () => Promise.reject(new MagsError('not_available', 'not here'))
      },
    ]) {
      fail()
      expect(await refused(id, { workspace_id: 'new' })).toEqual([400, 'not_available', 'not here'])
      expect(await total(mags)).toBe(before)
      expect(await workspaceNames(mags)).toEqual(['w'])
    }
    await until(() => mags.host.workspaces.removed.length).toBe(2)
    mags.host.beforeRun = () => undefined
    const copy = idOf(await fork(mags, id, { workspace_id: 'new' }))
    await until(async () => (await mags.status(copy)).workspace_version).toBe(1)
    expect(mags.host.sandboxes.size).toBe(3)
  })

  it('with an Idempotency-Key is made once, also while it is being made, and again after a failure', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags, { name: 'web' })
    const key = { 'idempotency-key': 'k' }
    mags.host.beforeFork = () => Promise.reject(new MagsError('not_available', 'not here'))
    expect((await fork(mags, id, {}, key)).status).toBe(400)
    const [gate, reached] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    mags.host.beforeFork = () => {
      reached.resolve()
      return gate.promise
    }
    const first = fork(mags, id, {}, key)
    await reached.promise
    const second = fork(mags, id, {}, key)
    gate.resolve()
    expect((await second).body).toEqual((await first).body)
    expect(await total(mags)).toBe(2)
    await mags.call('POST', `/mags-jobs/${id}/stop`)
    expect((await fork(mags, id, {}, key)).body).toEqual((await first).body)
    expect(await fork(mags, id, { name: 'other' }, key)).toMatchObject({ status: 409, body: { code: 'idempotency_conflict' } })
  })

  it('can be stopped while it is being made', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags, { name: 'web' })
    const reached = Promise.withResolvers<void>()
    mags.host.beforeFork = async (_spec, abort) => {
      reached.resolve()
      await new Promise((resolve) => abort?.addEventListener('abort', resolve))
    }
    const answer = fork(mags, id, { workspace_id: 'new' })
    await reached.promise
    expect((await mags.status('web-fork')).status).toBe('pending')
    await mags.call('POST', '/mags-jobs/web-fork/stop')
    expect(await answer).toMatchObject({ status: 400, body: { code: 'job_not_running', error: 'the copy was stopped before it ran' } })
    expect((await mags.status('web-fork')).status).toBe('stopped')
    expect(onlySandbox(mags).state).toBe('awake')
  })

  it('keeps its source awake while it is made', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags)
    const [gate, reached] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    mags.host.beforeFork = () => {
      reached.resolve()
      return gate.promise
    }
    const answer = fork(mags, id)
    await reached.promise
    await mags.pass(1_000_000)
    expect(await mags.call('POST', `/mags-jobs/${id}/sleep`)).toMatchObject({ status: 400 })
    gate.resolve()
    idOf(await answer)
  })
})

describe('a server that ends', () => {
  it.each(['beforeFork', 'beforeRun'] as const)('in the middle of a fork (%s) leaves no job, no workspace and no key', async (where) => {
    await using crash = new Crash()
    const first = await crash.first()
    const id = await resting(first, { name: 'web' })
    crash.host[where] = crash.here
    const key = { 'idempotency-key': 'k' }
    void fork(first, id, { workspace_id: 'new' }, key)
    const second = await crash.second()
    expect(await total(second)).toBe(1)
    expect(await workspaceNames(second)).toEqual([])
    await until(() => crash.host.workspaces.removed.length).toBe(1)
    const copy = idOf(await fork(second, id, { workspace_id: 'new' }, key))
    await until(async () => (await second.status(copy)).workspace_version).toBe(1)
  })

  it.each([true, false])('after a fork (with memory: %s) finds it again', async (withMemory) => {
    await using crash = new Crash()
    crash.host.forksMemory = withMemory
    const first = await crash.first()
    const id = await running(first, { script: 'echo before\nwait', startup_command: 'wait', persistent: true })
    await until(async () => (await first.rows(id)).logs.length).toBe(1)
    const copy = idOf(await fork(first, id))
    await lastsFor(first, copy)
    const second = await crash.next()
    expect(await second.status(copy)).toMatchObject({ status: 'running', forked_from: id })
    const sandbox = await sandboxOf(second, copy)
    await sandbox.write('stdout', 'after\n')
    await until(async () => (await second.rows(copy, `?source=${withMemory ? 'stdout' : 'system'}`)).logs.at(-1)?.message).toBe('after')
  })

  it('that ends in order lets go of what is being made', async () => {
    await using crash = new Crash()
    const first = await crash.first()
    const id = await resting(first, { name: 'web' })
    const reached = Promise.withResolvers<void>()
    crash.host.beforeFork = async (_spec, abort) => {
      reached.resolve()
      await new Promise((resolve) => abort?.addEventListener('abort', resolve))
    }
    const answer = fork(first, id)
    await reached.promise
    await first.server.close()
    expect((await answer).status).toBe(503)
    const second = await crash.next()
    expect(await total(second)).toBe(1)
    expect(await second.status(id)).toMatchObject({ status: 'running' })
  })
})

const noPostgres = whyNoPostgres()

describe.skipIf(noPostgres !== undefined)('a fork on postgres', () => {
  it('is made, repeated and discarded', async () => {
    await using postgres = await startPostgres()
    await using mags = await startSleepServer({ deps: { database: { kind: 'postgres', url: postgres.createDatabase() } } })
    const id = await resting(mags, { name: 'web' })
    const key = { 'idempotency-key': 'k' }
    mags.host.beforeFork = () => Promise.reject(new MagsError('not_available', 'not here'))
    expect((await fork(mags, id, { workspace_id: 'new' }, key)).status).toBe(400)
    expect([await total(mags), await workspaceNames(mags)]).toEqual([1, []])
    mags.host.beforeFork = () => undefined
    const copy = idOf(await fork(mags, id, { workspace_id: 'new' }, key))
    expect(idOf(await fork(mags, id, { workspace_id: 'new' }, key))).toBe(copy)
    expect(existsSync(logFile(mags, copy))).toBe(true)
    expect(await mags.status(copy)).toMatchObject({ forked_from: id, workspace_id: 'new' })
  })
})
