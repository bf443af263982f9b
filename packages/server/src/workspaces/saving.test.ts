import { MagsError } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { FakeHost } from '../testing/fake-host.ts'
import { FakeTimers } from '../testing/fake-timers.ts'
import { startTestServer, type TestServer, type TestServerOptions } from '../testing/test-server.ts'

const until = <T>(probe: () => T) => expect.poll(probe, { timeout: 10_000, interval: 5 })
const unavailable = () => new MagsError('object_store_unavailable', 'the object store does not answer')
const syncIntervalMs = 31_000
/** How often a job looks at what it has sent and was refused, which is no concern of these tests. */
const egressWaitsMs = [2000, 30_000]
const waitsOf = ({ timers }: { readonly timers: FakeTimers }) => timers.pending.filter((ms) => !egressWaitsMs.includes(ms))
const saveWaitMs = 120_000
const stopSaveWaitMs = 10_000
/** What the waits between attempts are, with FakeTimers' chance. */
const backoffsMs = [750, 1500, 3000, 6000, 12_000, 24_000, 45_000, 45_000]
const leftBackoffMs = 1500

async function start(options: TestServerOptions = {}) {
  const timers = new FakeTimers()
  const deps = { ...options.deps, timers, limits: { syncIntervalMs, saveWaitMs, stopSaveWaitMs, sleepCheckMs: 0, ...options.deps?.limits } }
  const mags = await startTestServer({ ...options, deps })
  return Object.assign(mags, { timers })
}

const running = async (mags: TestServer, body: Record<string, unknown>) => {
  const id = await mags.submit(body)
  await until(async () => (await mags.status(id)).status).toBe('running')
  await until(() => mags.host.sandboxes.size).toBeGreaterThan(0)
  return id
}

const systemRows = async (mags: TestServer, id: string) => (await mags.rows(id, '?source=system')).logs.map(({ message }) => message)
const workspace = async (mags: TestServer, id = 'w') => (await mags.call('GET', `/mags-workspaces/${id}`)).body
const onlySandbox = (mags: TestServer) => {
  const [sandbox] = [...mags.host.sandboxes.values()]
  if (!sandbox) throw new Error('no sandbox')
  return sandbox
}

describe('the end of a job', () => {
  it('is told once its workspace is saved, and not before', async () => {
    await using mags = await start()
    const gate = Promise.withResolvers<void>()
    mags.host.workspaces.beforeSave = () => gate.promise
    const id = await mags.submit({ script: 'write /a one', workspace_id: 'w' })
    await until(() => waitsOf(mags)).toContain(1000)
    expect(await mags.status(id)).toMatchObject({ status: 'running', exit_code: null, workspace_version: 0 })
    expect(mags.timers.end(1000)).toBe(1)
    await until(() => systemRows(mags, id)).toEqual(["saving workspace 'w'"])
    expect(await mags.call('POST', '/mags-jobs', { script: 'echo', workspace_id: 'w' })).toMatchObject({ body: { code: 'workspace_in_use' } })
    gate.resolve()
    expect(await mags.ended(id)).toMatchObject({ status: 'completed', exit_code: 0, workspace_version: 1 })
    expect(await systemRows(mags, id)).toEqual(["saving workspace 'w'", "workspace 'w' is saved as version 1"])
    expect(waitsOf(mags)).toEqual([])
  })

  it('saves what a failing script made', async () => {
    await using mags = await start()
    expect(await mags.ended(await mags.submit({ script: 'write /a one\nexit 3', workspace_id: 'w' }))).toMatchObject({
      status: 'error',
      exit_code: 3,
      error: 'the script ended with exit code 3',
      workspace_version: 1,
    })
  })

  it('makes no version when nothing changed', async () => {
    await using mags = await start()
    await mags.ended(await mags.submit({ script: 'write /a one', workspace_id: 'w' }))
    const id = await mags.submit({ script: 'echo', workspace_id: 'w' })
    expect(await mags.ended(id)).toMatchObject({ workspace_version: 1, workspace_bytes_uploaded: 0 })
    expect(await systemRows(mags, id)).toEqual([])
  })

  it.each(['wait', 'stubborn'])('saves after a stop and after a timeout (%s)', async (script) => {
    await using mags = await start()
    const stopped = await running(mags, { script: `write /a one\n${script}`, workspace_id: 'w' })
    await mags.call('POST', `/mags-jobs/${stopped}/stop`)
    expect(await mags.status(stopped)).toMatchObject({ status: 'stopped', workspace_version: 1, error: null })
    const late = await mags.submit({ script: `write /a two\n${script}`, workspace_id: 'w', timeout: 1 })
    expect(await mags.ended(late)).toMatchObject({ status: 'error', exit_code: 124, error: 'timed out after 1 s', workspace_version: 2 })
  })

  it('waits for an object store that does not answer, ever longer between attempts', async () => {
    await using mags = await start()
    mags.host.workspaces.fault = unavailable()
    const id = await mags.submit({ script: 'write /a one', workspace_id: 'w' })
    for (const [index, ms] of backoffsMs.entries()) {
      await until(() => waitsOf(mags)).toContain(ms)
      expect(mags.host.workspaces.attempts).toBe(index + 1)
      if (index === 2) {
        const unsaved = { unsaved_since: expect.any(String), save_error: 'the object store does not answer', in_use_by: id, version: 0 }
        expect(await workspace(mags)).toMatchObject(unsaved)
        expect(await mags.status(id)).toMatchObject({ status: 'running', workspace_unsaved_since: expect.any(String) })
      }
      if (index === backoffsMs.length - 1) mags.host.workspaces.fault = undefined
      mags.timers.end(ms)
    }
    expect(await mags.ended(id)).toMatchObject({ status: 'completed', workspace_version: 1, workspace_unsaved_since: null })
    expect((await systemRows(mags, id)).filter((row) => row !== "saving workspace 'w'")).toEqual([
      "workspace 'w' cannot be saved at the moment: the object store does not answer; its changes are kept, and saving is tried again",
      "workspace 'w' is saved as version 1",
    ])
    expect(await workspace(mags)).toMatchObject({ unsaved_since: null, save_error: null, version: 1, in_use_by: null })
  })

  it('is an error when that takes too long, and the changes are saved later', async () => {
    await using mags = await start()
    mags.host.workspaces.fault = unavailable()
    const id = await mags.submit({ script: 'write /a one', workspace_id: 'w' })
    await until(() => waitsOf(mags)).toContain(750)
    expect(mags.timers.end(saveWaitMs)).toBe(1)
    const words = "workspace 'w' could not be saved within 120 s; its changes are kept on this machine and saved later"
    expect(await mags.ended(id)).toMatchObject({ status: 'error', exit_code: 0, error: words, workspace_unsaved_since: expect.any(String) })
    expect((await systemRows(mags, id)).at(-1)).toBe(words)
    await until(() => waitsOf(mags)).toEqual([leftBackoffMs])
    expect(await workspace(mags)).toMatchObject({ in_use_by: null, unsaved_since: expect.any(String), version: 0 })
    mags.timers.end(leftBackoffMs)
    await until(() => waitsOf(mags)).toEqual([2 * leftBackoffMs])
    mags.host.workspaces.fault = undefined
    mags.timers.end(2 * leftBackoffMs)
    await until(() => workspace(mags)).toMatchObject({ unsaved_since: null, save_error: null, version: 1 })
    expect(waitsOf(mags)).toEqual([])
    // What the job said of itself stays.
    expect(await mags.status(id)).toMatchObject({ status: 'error', error: words, workspace_unsaved_since: null })
  })

  it('says so when what was not saved is lost, and holds nothing back', async () => {
    await using mags = await start()
    mags.host.workspaces.keepsUnsaved = false
    mags.host.workspaces.faults.push(new MagsError('sandbox_failed', 'freeze the disk: not supported'))
    const id = await mags.submit({ script: 'write /a one', workspace_id: 'w' })
    const words = "workspace 'w' could not be saved: freeze the disk: not supported; what changed since it was saved last is lost"
    expect(await mags.ended(id)).toMatchObject({ status: 'error', exit_code: 0, error: words })
    await until(async () => await workspace(mags)).toMatchObject({ unsaved_since: null, save_error: null, version: 0, in_use_by: null })
  })

  it('gives up an attempt that hangs', async () => {
    await using mags = await start()
    const gate = Promise.withResolvers<void>()
    mags.host.workspaces.beforeSave = () => gate.promise
    const id = await mags.submit({ script: 'write /a one\nexit 4', workspace_id: 'w' })
    await until(() => waitsOf(mags)).toContain(saveWaitMs)
    mags.timers.end(saveWaitMs)
    const { status, exit_code, error } = await mags.ended(id)
    expect({ status, exit_code }).toEqual({ status: 'error', exit_code: 4 })
    expect(error).toBe("the script ended with exit code 4; workspace 'w' could not be saved within 120 s; its changes are kept on this machine and saved later")
    gate.resolve()
    await until(() => workspace(mags)).toMatchObject({ version: 1, unsaved_since: null })
  })

  it('is an error at once when trying again is of no use', async () => {
    await using mags = await start()
    mags.host.workspaces.faults.push(new MagsError('workspace_not_savable', '/data has 10,000,001 entries'))
    const id = await mags.submit({ script: 'write /a one', workspace_id: 'w' })
    expect(await mags.ended(id)).toMatchObject({
      status: 'error',
      error: "workspace 'w' could not be saved: /data has 10,000,001 entries; its changes are kept on this machine",
    })
    expect(waitsOf(mags)).toEqual([])
    // The next job goes on from them.
    const next = await mags.submit({ script: 'read /a', workspace_id: 'w' })
    expect(await mags.ended(next)).toMatchObject({ status: 'completed', workspace_version: 1 })
    expect((await mags.rows(next, '?source=stdout')).logs).toMatchObject([{ message: 'one' }])
  })

  it('is an error when somebody has taken the workspace over', async () => {
    await using mags = await start()
    const id = await running(mags, { script: 'write /a one\nwait', workspace_id: 'w' })
    mags.host.workspaces.claim({ storageId: mags.host.acquired[0]?.workspace?.storageId ?? '', fence: 99 })
    onlySandbox(mags).end({ kind: 'exited', exitCode: 0 })
    expect(await mags.ended(id)).toMatchObject({ status: 'error', error: expect.stringContaining('another holder has taken the workspace over') })
    expect(await workspace(mags)).toMatchObject({ version: 0, unsaved_since: null, in_use_by: null })
  })

  it('ends a running job when somebody has taken the workspace over', async () => {
    await using mags = await start()
    const id = await running(mags, { script: 'write /a one', workspace_id: 'w', persistent: true })
    await until(async () => (await mags.status(id)).exit_code).toBe(0)
    mags.host.workspaces.claim({ storageId: mags.host.acquired[0]?.workspace?.storageId ?? '', fence: 99 })
    expect(mags.timers.end(syncIntervalMs)).toBe(1)
    expect(await mags.ended(id)).toMatchObject({ status: 'error', error: 'another holder has taken the workspace over' })
    await until(() => mags.host.sandboxes.size).toBe(0)
    expect(waitsOf(mags)).toEqual([])
  })

  it('does not save what could not be started', async () => {
    await using mags = await start({
      beforeAcquire: (spec) => {
        if (spec.workspace) throw new MagsError('workspace_damaged', 'pack 12ab is missing')
      },
    })
    expect(await mags.ended(await mags.submit({ script: 'echo', workspace_id: 'w' }))).toMatchObject({ status: 'error', error: 'pack 12ab is missing' })
    expect(await workspace(mags)).toMatchObject({ in_use_by: null, version: 0 })
    expect(mags.host.workspaces.attempts).toBe(0)
  })
})

describe('a workspace that was not saved', () => {
  /** A job on `w` that wrote /a and ended without being saved. */
  async function leftBehind() {
    const mags = await start()
    mags.host.workspaces.fault = unavailable()
    const id = await mags.submit({ script: 'write /a one', workspace_id: 'w' })
    await until(() => waitsOf(mags)).toContain(750)
    mags.timers.end(saveWaitMs)
    await mags.ended(id)
    await until(() => waitsOf(mags)).toEqual([leftBackoffMs])
    return mags
  }

  it('goes on in the next job from what is on this machine', async () => {
    await using mags = await leftBehind()
    const id = await running(mags, { script: 'write /b two\nread /a\nwait', workspace_id: 'w' })
    await until(async () => (await mags.rows(id, '?source=stdout')).logs).toHaveLength(1)
    mags.host.workspaces.fault = undefined
    // The background leaves it to the job that has it now.
    const { attempts } = mags.host.workspaces
    mags.timers.end(leftBackoffMs)
    await until(() => waitsOf(mags)).not.toContain(leftBackoffMs)
    expect(mags.host.workspaces.attempts).toBe(attempts)
    onlySandbox(mags).end({ kind: 'exited', exitCode: 0 })
    expect(await mags.ended(id)).toMatchObject({ status: 'completed', workspace_version: 1, workspace_unsaved_since: null })
    expect((await mags.rows(id, '?source=stdout')).logs).toMatchObject([{ message: 'one' }])
    expect(await workspace(mags)).toMatchObject({ version: 1, unsaved_since: null, size_bytes: 6 })
  })

  it('is saved by the background when the next job was stopped before it began', async () => {
    await using mags = await leftBehind()
    const gate = Promise.withResolvers<void>()
    mags.host.workspaces.beforeSave = () => gate.promise
    mags.timers.end(leftBackoffMs)
    // The attempt hangs; the job waits for it.
    await until(() => mags.host.workspaces.attempts).toBe(3)
    const id = await mags.submit({ script: 'echo', workspace_id: 'w' })
    await mags.call('POST', `/mags-jobs/${id}/stop`)
    expect(await mags.status(id)).toMatchObject({ status: 'stopped' })
    mags.host.workspaces.fault = undefined
    gate.resolve()
    await until(() => workspace(mags)).toMatchObject({ version: 1, unsaved_since: null })
  })

  it('is saved before an earlier version is restored', async () => {
    await using mags = await leftBehind()
    mags.host.workspaces.fault = undefined
    mags.timers.end(leftBackoffMs)
    await until(() => workspace(mags)).toMatchObject({ version: 1 })
    mags.host.workspaces.fault = unavailable()
    const id = await mags.submit({ script: 'write /a two', workspace_id: 'w' })
    await until(() => waitsOf(mags)).toContain(750)
    mags.timers.end(saveWaitMs)
    await mags.ended(id)
    await until(() => waitsOf(mags)).toEqual([leftBackoffMs])
    expect(await mags.call('POST', '/mags-workspaces/w/restore', { version: 1 })).toMatchObject({ status: 503 })
    mags.host.workspaces.fault = undefined
    expect(await mags.call('POST', '/mags-workspaces/w/restore', { version: 1 })).toMatchObject({ body: { version: 3 } })
    expect((await mags.call('GET', '/mags-workspaces/w/versions')).body.versions).toMatchObject([{ reason: 'restore' }, { reason: 'sync' }, { reason: 'sync' }])
  })

  it('is saved after a restart', async () => {
    const mags = await leftBehind()
    await using undo = new AsyncDisposableStack()
    undo.use(mags)
    await mags.server.close()
    mags.host.workspaces.fault = undefined
    await using second = await start({ host: mags.host, deps: mags.deps })
    await until(() => workspace(second)).toMatchObject({ version: 1, unsaved_since: null })
  })
})

describe('a running job', () => {
  it('is saved every so often, when it changed', async () => {
    await using mags = await start()
    const id = await running(mags, { script: 'write /a one\nwait', workspace_id: 'w', persistent: true })
    await until(() => waitsOf(mags)).toEqual([syncIntervalMs])
    mags.timers.end(syncIntervalMs)
    await until(() => mags.status(id)).toMatchObject({ status: 'running', workspace_version: 1, synced_at: expect.any(String) })
    await until(() => waitsOf(mags)).toEqual([syncIntervalMs])
    mags.timers.end(syncIntervalMs)
    await until(() => mags.host.workspaces.attempts).toBe(2)
    await until(() => waitsOf(mags)).toEqual([syncIntervalMs])
    expect(await mags.status(id)).toMatchObject({ workspace_version: 1 })
    onlySandbox(mags).files.put('/b', 'two')
    await mags.call('POST', `/mags-jobs/${id}/stop`)
    expect(await mags.status(id)).toMatchObject({ status: 'stopped', workspace_version: 2, workspace_bytes_uploaded: 6 })
    expect(waitsOf(mags)).toEqual([])
  })

  it('goes on while the object store does not answer, and says so once', async () => {
    await using mags = await start()
    const id = await running(mags, { script: 'write /a one\nwait', workspace_id: 'w' })
    mags.host.workspaces.fault = unavailable()
    await until(() => waitsOf(mags)).toEqual([syncIntervalMs])
    mags.timers.end(syncIntervalMs)
    for (const ms of backoffsMs.slice(0, 3)) {
      await until(() => waitsOf(mags)).toEqual([ms])
      expect(await mags.status(id)).toMatchObject({ status: 'running', workspace_unsaved_since: expect.any(String) })
      mags.timers.end(ms)
    }
    await until(() => waitsOf(mags)).toEqual([backoffsMs[3]])
    mags.host.workspaces.fault = undefined
    mags.timers.end(6000)
    await until(() => waitsOf(mags)).toEqual([syncIntervalMs])
    expect(await mags.status(id)).toMatchObject({ status: 'running', workspace_unsaved_since: null, workspace_version: 1 })
    expect(await systemRows(mags, id)).toEqual([
      "workspace 'w' cannot be saved at the moment: the object store does not answer; its changes are kept, and saving is tried again",
      "workspace 'w' is saved again (version 1)",
    ])
    await mags.call('POST', `/mags-jobs/${id}/stop`)
  })

  it('is saved on request', async () => {
    await using mags = await start()
    const id = await running(mags, { script: 'write /a one\nwait', workspace_id: 'w' })
    expect(await mags.call('POST', `/mags-jobs/${id}/sync`)).toMatchObject({
      status: 200,
      body: { success: true, workspace_id: 'w', version: 1, bytes_uploaded: 3 },
    })
    expect(await mags.call('POST', '/mags-jobs/w/sync')).toMatchObject({ body: { version: 1, bytes_uploaded: 0 } })
    mags.host.workspaces.faults.push(unavailable())
    expect(await mags.call('POST', '/mags-jobs/w/sync')).toMatchObject({ status: 503, body: { code: 'object_store_unavailable' } })
    expect(await workspace(mags)).toMatchObject({ unsaved_since: expect.any(String) })
    await mags.call('POST', `/mags-jobs/${id}/stop`)
    expect(await mags.call('POST', `/mags-jobs/${id}/sync`)).toMatchObject({ status: 400, body: { code: 'job_not_running' } })
    const plain = await running(mags, { script: 'wait' })
    expect(await mags.call('POST', `/mags-jobs/${plain}/sync`)).toMatchObject({
      status: 400,
      body: { code: 'bad_request', error: expect.stringContaining('no workspace') },
    })
  })

  it('waits for a save under way, and is saved once more for all who asked meanwhile', async () => {
    await using mags = await start()
    const id = await running(mags, { script: 'write /a one\nwait', workspace_id: 'w' })
    const gate = Promise.withResolvers<void>()
    mags.host.workspaces.beforeSave = () => gate.promise
    const first = mags.call('POST', `/mags-jobs/${id}/sync`)
    await until(() => mags.host.workspaces.attempts).toBe(1)
    const others = [1, 2, 3].map(() => mags.call('POST', `/mags-jobs/${id}/sync`))
    // All of them have asked once a request that came later is answered.
    await mags.status(id)
    expect(mags.host.workspaces.attempts).toBe(1)
    gate.resolve()
    expect(await first).toMatchObject({ status: 200 })
    for (const answer of await Promise.all(others)) expect(answer).toMatchObject({ status: 200, body: { version: 1 } })
    expect(mags.host.workspaces.attempts).toBe(2)
  })

  it('is stopped in bounded time while the object store does not answer', async () => {
    await using mags = await start()
    const id = await running(mags, { script: 'write /a one\nwait', workspace_id: 'w' })
    mags.host.workspaces.fault = unavailable()
    const stop = mags.call('POST', `/mags-jobs/${id}/stop`)
    await until(() => waitsOf(mags)).toContain(stopSaveWaitMs)
    mags.timers.end(stopSaveWaitMs)
    expect(await stop).toMatchObject({ status: 200 })
    expect(await mags.status(id)).toMatchObject({
      status: 'error',
      error: "workspace 'w' could not be saved within 10 s; its changes are kept on this machine and saved later",
    })
  })
})

describe('a restart', () => {
  it('goes on saving what was adopted, and saves what the others left', async () => {
    const host = new FakeHost()
    await using undo = new AsyncDisposableStack()
    undo.defer(() => host.close())
    const first = undo.use(await start({ host }))
    const keep = await running(first, { script: 'write /a one\nwait', workspace_id: 'keep', persistent: true })
    const vm = (await first.status(keep)).vm_id ?? ''
    await first.server.close()
    await using second = await start({ host, deps: first.deps, held: true })
    const waiting = await second.submit({ script: 'write /c three', workspace_id: 'late' })
    await second.server.start()
    expect(await second.ended(waiting)).toMatchObject({ status: 'completed', workspace_version: 1 })
    expect(await workspace(second, 'keep')).toMatchObject({ in_use_by: keep, version: 0 })
    expect(await second.call('POST', '/mags-jobs', { script: 'echo', workspace_id: 'keep' })).toMatchObject({ body: { code: 'workspace_in_use' } })
    host.sandboxes.get(vm)?.files.put('/b', 'two')
    expect(await second.call('POST', `/mags-jobs/${keep}/sync`)).toMatchObject({ body: { version: 1, bytes_uploaded: 6 } })
    await until(() => waitsOf(second)).toEqual([syncIntervalMs])
    await second.call('POST', `/mags-jobs/${keep}/stop`)
    expect(await workspace(second, 'keep')).toMatchObject({ in_use_by: null, version: 1 })
  })

  it('frees what jobs held that ended with the former process, and saves what they left', async () => {
    const host = new FakeHost()
    await using undo = new AsyncDisposableStack()
    undo.defer(() => host.close())
    const first = undo.use(await start({ host }))
    const lost = await running(first, { script: 'write /a one\nwait', workspace_id: 'w', persistent: true })
    // The process dies between a save and its note in the database, and the sandbox with changes after that.
    const sandbox = onlySandbox(first)
    await sandbox.saveWorkspace({ final: false })
    await first.server.close()
    sandbox.files.put('/b', 'two')
    await sandbox.destroy()
    host.workspaces.fault = unavailable()
    await using second = await start({ host, deps: first.deps })
    expect(await second.status(lost)).toMatchObject({ status: 'error', error: 'the sandbox was gone after a restart of the server' })
    await until(() => workspace(second)).toMatchObject({ in_use_by: null, unsaved_since: expect.any(String), version: 0 })
    await until(() => waitsOf(second)).toEqual([leftBackoffMs])
    host.workspaces.fault = undefined
    second.timers.end(leftBackoffMs)
    await until(() => workspace(second)).toMatchObject({ unsaved_since: null, version: 2, size_bytes: 6 })
  })

  it('finds a version that was not noted, also for a base', async () => {
    const host = new FakeHost()
    await using undo = new AsyncDisposableStack()
    undo.defer(() => host.close())
    const first = undo.use(await start({ host }))
    await running(first, { script: 'write /a one\nwait', workspace_id: 'w', persistent: true })
    await onlySandbox(first).saveWorkspace({ final: false })
    const worker = await first.submit({ script: 'read /a', base_workspace_id: 'w' })
    expect(await first.ended(worker)).toMatchObject({ status: 'completed' })
    expect((await first.rows(worker)).logs).toMatchObject([{ message: 'one' }])
    expect(await workspace(first)).toMatchObject({ version: 1 })
  })

  it('saves a job that runs when the server ends, in bounded time', async () => {
    const host = new FakeHost()
    await using undo = new AsyncDisposableStack()
    undo.defer(() => host.close())
    const first = undo.use(await start({ host }))
    const id = await running(first, { script: 'write /a one\nwait', workspace_id: 'w' })
    const other = await running(first, { script: 'write /a one\nwait', workspace_id: 'x' })
    const slow = host.acquired[1]?.workspace?.storageId
    host.workspaces.beforeSave = (storageId) => (storageId === slow ? Promise.reject(unavailable()) : undefined)
    let closed = false
    const closing = first.server.close().then(() => {
      closed = true
    })
    await until(() => {
      first.timers.end(stopSaveWaitMs)
      return closed
    }).toBe(true)
    await closing
    host.workspaces.beforeSave = () => undefined
    await using second = await start({ host, deps: first.deps })
    expect(await second.status(id)).toMatchObject({ status: 'error', error: 'the server stopped while this job ran', workspace_version: 1 })
    expect((await second.status(other)).error).toMatch(/^the server stopped while this job ran; workspace 'x' could not be saved within 10 s/)
    await until(() => workspace(second, 'x')).toMatchObject({ version: 1, unsaved_since: null })
  })

  it('takes a fork away that was being made', async () => {
    await using mags = await start()
    await mags.ended(await mags.submit({ script: 'write /a one', workspace_id: 'w' }))
    const { fork, remove } = mags.host.workspaces
    // Dies in the middle: neither the fork nor its undoing comes to an end.
    mags.host.workspaces.fork = async (from, to) => {
      await fork.call(mags.host.workspaces, from, to)
      throw new Error('killed')
    }
    mags.host.workspaces.remove = async () => {
      throw new Error('killed')
    }
    expect(await mags.call('POST', '/mags-workspaces/w/fork', { workspace_id: 'x' })).toMatchObject({ status: 500 })
    await mags.server.close()
    Object.assign(mags.host.workspaces, { fork, remove })
    await using second = await start({ host: mags.host, deps: mags.deps })
    await until(() => second.host.workspaces.removed).toHaveLength(1)
    expect((await second.call('GET', '/mags-workspaces')).body.total).toBe(1)
  })
})
