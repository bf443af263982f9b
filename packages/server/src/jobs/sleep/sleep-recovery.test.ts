import { describe, expect, it } from 'vitest'
import { Crash } from '../../testing/crash.ts'
import { isSleeping, onlySandbox, resting, running, type SleepServer, systemRows } from '../../testing/sleep-server.ts'

const until = <T>(probe: () => T) => expect.poll(probe, { timeout: 10_000, interval: 5 })
const inWorkspace = { script: 'write /a one', workspace_id: 'w', startup_command: 'echo started\nwait' }

const post = (mags: SleepServer, id: string, verb: string, body = {}) => mags.call('POST', `/mags-jobs/${id}/${verb}`, body)
const reads = async (mags: SleepServer, id: string, path = '/a') => (await post(mags, id, 'exec', { command: `read ${path}` })).body.stdout

describe('a server that ends while a job', () => {
  it('is saved before it sleeps: it is awake', async () => {
    await using crash = new Crash()
    const first = await crash.first()
    const id = await resting(first, inWorkspace)
    crash.host.workspaces.beforeSave = crash.here
    void post(first, id, 'sleep')
    const second = await crash.second()
    expect(await second.status(id)).toMatchObject({ status: 'running', sleep_stage: null })
    expect(onlySandbox(crash).state).toBe('awake')
    expect(await reads(second, id)).toBe('one\n')
  })

  it('was frozen, which is not stored: it is awake', async () => {
    await using crash = new Crash()
    const first = await crash.first()
    const id = await resting(first, inWorkspace)
    await onlySandbox(crash).sleep()
    const second = await crash.next()
    expect((await second.status(id)).status).toBe('running')
    expect(crash.host.adopted).toEqual([{ sandboxId: onlySandbox(crash).sandboxId, asleep: false }])
    expect(await reads(second, id)).toBe('one\n')
  })

  it('sleeps: it sleeps on, and wakes', async () => {
    await using crash = new Crash()
    const first = await crash.first()
    const id = await running(first, { script: 'wait', persistent: true })
    await post(first, id, 'sleep')
    await first.server.close()
    const second = await crash.next()
    expect(crash.host.adopted).toEqual([{ sandboxId: onlySandbox(crash).sandboxId, asleep: true }])
    expect(await second.status(id)).toMatchObject({ status: 'sleeping', sleep_stage: 'frozen' })
    expect(onlySandbox(crash)).toMatchObject({ state: 'asleep', wakes: 0 })
    expect(await post(second, id, 'wake')).toMatchObject({ status: 200 })
    // Its script is still the one that decides.
    onlySandbox(crash).end({ kind: 'exited', exitCode: 4 })
    await until(async () => (await second.status(id)).exit_code).toBe(4)
  })

  it.each([
    ['hibernates', false],
    ['has hibernated, which is not stored', true],
  ])('%s: it wakes', async (_name, done) => {
    await using crash = new Crash()
    crash.host.hibernates = true
    const first = await crash.first()
    const id = await resting(first)
    await post(first, id, 'sleep')
    crash.host.beforeHibernate = crash.here
    void post(first, id, 'sleep', { release: true })
    if (done) onlySandbox(crash).state = 'hibernated'
    const second = await crash.second()
    expect(await second.status(id)).toMatchObject({ status: 'sleeping', sleep_stage: 'frozen' })
    expect(onlySandbox(crash).state).toBe(done ? 'hibernated' : 'asleep')
    expect(await post(second, id, 'wake')).toMatchObject({ status: 200 })
    expect(onlySandbox(crash).state).toBe('awake')
  })

  it('is saved for the last time before it gives its sandbox back: it wakes from its workspace', async () => {
    await using crash = new Crash()
    const first = await crash.first()
    const id = await resting(first, inWorkspace)
    await post(first, id, 'sleep')
    onlySandbox(crash).files.put('/b', 'late')
    crash.host.workspaces.beforeSave = crash.here
    void post(first, id, 'sleep', { release: true })
    await until(() => crash.host.workspaces.attempts).toBe(2)
    // Its processes are ended for that, so there is nothing to take back.
    await onlySandbox(crash).destroy()
    const second = await crash.second()
    expect(await second.status(id)).toMatchObject({ status: 'sleeping', sleep_stage: 'released', vm_id: null })
    expect(await reads(second, id)).toBe('one\n')
    expect(await reads(second, id, '/b')).toBe('late\n')
    await until(() => systemRows(second, id)).toContain('started')
  })

  it('has given its sandbox back: it wakes from its workspace', async () => {
    await using crash = new Crash()
    const first = await crash.first()
    const id = await resting(first, inWorkspace)
    await post(first, id, 'sleep', { release: true })
    await first.server.close()
    const second = await crash.next()
    expect(crash.host.adopted).toEqual([])
    expect(await second.status(id)).toMatchObject({ status: 'sleeping', sleep_stage: 'released' })
    expect((await second.call('POST', '/mags-jobs', { script: 'echo', workspace_id: 'w' })).body).toMatchObject({ code: 'workspace_in_use' })
    expect(await reads(second, id)).toBe('one\n')
    await post(second, id, 'stop')
    expect((await second.call('GET', '/mags-workspaces/w')).body).toMatchObject({ in_use_by: null })
  })

  it('is let go on: it sleeps, and wakes', async () => {
    await using crash = new Crash()
    const first = await crash.first()
    const id = await resting(first, inWorkspace)
    await post(first, id, 'sleep')
    crash.host.beforeWake = crash.here
    void post(first, id, 'wake')
    const second = await crash.second()
    await isSleeping(second, id)
    expect(await reads(second, id)).toBe('one\n')
  })

  it('goes on, which is not stored: it is put to sleep again', async () => {
    await using crash = new Crash()
    const first = await crash.first()
    const id = await resting(first, inWorkspace)
    await post(first, id, 'sleep')
    await onlySandbox(crash).wake()
    const second = await crash.next()
    await isSleeping(second, id)
    expect(onlySandbox(crash).state).toBe('asleep')
    expect(await reads(second, id)).toBe('one\n')
  })

  it('gets a new sandbox: it wakes in another one', async () => {
    await using crash = new Crash()
    const first = await crash.first()
    const id = await resting(first, inWorkspace)
    await post(first, id, 'sleep', { release: true })
    crash.host.beforeRun = crash.here
    void post(first, id, 'wake')
    await until(() => crash.host.sandboxes.size).toBe(1)
    crash.host.beforeRun = () => undefined
    const second = await crash.second()
    expect(await second.status(id)).toMatchObject({ status: 'sleeping', sleep_stage: 'released', vm_id: null })
    expect(await reads(second, id)).toBe('one\n')
    expect(await second.status(id)).toMatchObject({ status: 'running' })
  })

  it('runs in its new sandbox: it is adopted there, and its startup command does not end it', async () => {
    await using crash = new Crash()
    const first = await crash.first()
    const id = await running(first, { ...inWorkspace, script: 'write /a one\nwait', persistent: true })
    await post(first, id, 'sleep', { release: true })
    await post(first, id, 'wake')
    await until(() => systemRows(first, id)).toContain('started')
    await first.server.close()
    const second = await crash.next()
    expect(await second.status(id)).toMatchObject({ status: 'running', exit_code: null })
    await onlySandbox(crash).write('stdout', 'more\n')
    await until(() => systemRows(second, id)).toContain('more')
    onlySandbox(crash).end({ kind: 'exited', exitCode: 2 })
    await until(() => systemRows(second, id)).toContain('the startup command ended with exit code 2')
    expect(await second.status(id)).toMatchObject({ status: 'running', exit_code: null })
    expect((await second.rows(id, '?source=stdout')).logs).toEqual([])
    await post(second, id, 'stop')
    expect(await second.status(id)).toMatchObject({ status: 'stopped', exit_code: null })
  })

  it('sleeps without a workspace, and its sandbox is gone after that: it ends', async () => {
    await using crash = new Crash()
    const first = await crash.first()
    const id = await resting(first)
    await post(first, id, 'sleep')
    await first.server.close()
    await onlySandbox(crash).destroy()
    const second = await crash.next()
    expect(await second.status(id)).toMatchObject({ status: 'error', error: 'the sandbox was gone after a restart of the server', sleep_stage: null })
  })
})
