import { MagsError } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { checkMs, isSleeping, onlySandbox, resting, type SleepServer, startSleepServer, systemRows } from '../../testing/sleep-server.ts'

const until = <T>(probe: () => T) => expect.poll(probe, { timeout: 10_000, interval: 5 })
const unavailable = () => new MagsError('object_store_unavailable', 'the object store does not answer')

describe('sleeping deeper', () => {
  const asleep = async (mags: SleepServer, body: Record<string, unknown> = {}) => {
    const id = await resting(mags, body)
    await mags.call('POST', `/mags-jobs/${id}/sleep`)
    return id
  }

  it('comes after an hour, and wakes the job in a new sandbox with its startup command', async () => {
    await using mags = await startSleepServer()
    const id = await asleep(mags, {
      script: 'write /a one',
      workspace_id: 'w',
      environment: { GREETING: 'hi' },
      startup_command: 'env GREETING\nread /a\nerr oops\nwait',
    })
    const first = (await mags.status(id)).vm_id
    await mags.pass(3_590_000)
    expect((await mags.status(id)).sleep_stage).toBe('frozen')
    await mags.pass(checkMs)
    await until(async () => (await mags.status(id)).sleep_stage).toBe('released')
    expect(await mags.status(id)).toMatchObject({ status: 'sleeping', vm_id: null, workspace_version: 1 })
    await until(() => mags.host.sandboxes.size).toBe(0)
    expect((await mags.call('GET', '/mags-workspaces/w')).body).toMatchObject({ in_use_by: id })
    expect((await mags.call('POST', '/mags-jobs', { script: 'echo', workspace_id: 'w' })).body).toMatchObject({ code: 'workspace_in_use' })
    // Neither a pool's nor a polling.
    await mags.pass(3_600_000)
    expect((await mags.status(id)).sleep_stage).toBe('released')

    expect((await mags.call('POST', `/mags-jobs/${id}/exec`, { command: 'read /a' })).body).toMatchObject({ stdout: 'one\n' })
    const status = await mags.status(id)
    expect(status).toMatchObject({ status: 'running', wake_reason: 'exec', exit_code: 0 })
    expect(status.vm_id).not.toBe(first)
    await until(async () => (await systemRows(mags, id)).slice(-4)).toEqual(expect.arrayContaining(['hi', 'one', 'oops']))
    const rows = (await mags.rows(id, '?source=system')).logs
    expect(rows.find(({ message }) => message === 'oops')).toMatchObject({ level: 'error' })
    expect((await mags.rows(id, '?source=stdout')).logs).toEqual([])
    // Its traffic counts from now on, and its workspace is saved on.
    await mags.call('PUT', `/mags-jobs/${id}/files?path=/b`)
    expect((await mags.call('POST', `/mags-jobs/${id}/sync`)).body).toMatchObject({ version: 2 })
    await mags.pass(600_000)
    await isSleeping(mags, id)
  })

  it('lives on when the startup command ends', async () => {
    await using mags = await startSleepServer()
    const id = await asleep(mags, { script: 'write /a one', workspace_id: 'w', startup_command: 'exit 3' })
    await mags.call('POST', `/mags-jobs/${id}/sleep`, { release: true })
    await mags.call('POST', `/mags-jobs/${id}/wake`)
    await until(() => systemRows(mags, id)).toContain('the startup command ended with exit code 3')
    expect(await mags.status(id)).toMatchObject({ status: 'running', exit_code: 0 })
    expect((await mags.call('POST', `/mags-jobs/${id}/exec`, { command: 'read /a' })).body).toMatchObject({ stdout: 'one\n' })
    await mags.call('POST', `/mags-jobs/${id}/stop`)
    expect(await mags.status(id)).toMatchObject({ status: 'stopped', exit_code: 0 })
  })

  it('takes the startup command as it was changed meanwhile, and goes on from its own workspace, not its base', async () => {
    await using mags = await startSleepServer()
    await mags.ended(await mags.submit({ script: 'write /a base', workspace_id: 'base' }))
    const id = await asleep(mags, { script: 'write /a own', workspace_id: 'w', base_workspace_id: 'base' })
    await mags.call('POST', `/mags-jobs/${id}/sleep`, { release: true })
    await mags.call('PATCH', `/mags-jobs/${id}`, { startup_command: 'read /a' })
    await mags.call('POST', `/mags-jobs/${id}/wake`)
    await until(() => systemRows(mags, id)).toContain('own')
  })

  it('bounds the output of a startup command', async () => {
    await using mags = await startSleepServer()
    const flood = Array.from({ length: 200 }, () => `echo ${'x'.repeat(10_000)}`).join('\n')
    const id = await asleep(mags, { script: 'write /a one', workspace_id: 'w' })
    await mags.call('POST', `/mags-jobs/${id}/sleep`, { release: true })
    mags.flood = flood
    await mags.call('PATCH', `/mags-jobs/${id}`, { startup_command: 'flood' })
    await mags.call('POST', `/mags-jobs/${id}/wake`)
    await until(() => systemRows(mags, id)).toContain('output limit of 1 MiB of the startup command reached; the rest is dropped')
  })

  it('hibernates a machine that can', async () => {
    await using mags = await startSleepServer()
    mags.host.hibernates = true
    const id = await asleep(mags)
    await mags.pass(3_600_000)
    await until(async () => (await mags.status(id)).sleep_stage).toBe('hibernated')
    const sandbox = onlySandbox(mags)
    expect(sandbox.state).toBe('hibernated')
    await mags.call('POST', `/mags-jobs/${id}/wake`)
    expect(sandbox).toMatchObject({ state: 'awake', wakes: 1 })
    expect(await mags.status(id)).toMatchObject({ status: 'running', vm_id: sandbox.sandboxId })
  })

  it('keeps the memory of what has no workspace and cannot hibernate', async () => {
    await using mags = await startSleepServer()
    const id = await asleep(mags)
    await mags.pass(7_200_000)
    expect(await mags.status(id)).toMatchObject({ status: 'sleeping', sleep_stage: 'frozen' })
    expect((await mags.call('POST', `/mags-jobs/${id}/sleep`, { release: true })).body).toMatchObject({
      sleep_stage: 'frozen',
      message: 'Job sleeps already; its memory is kept, because it has no workspace to wake from',
    })
  })

  it('comes at once for the longest sleepers while memory is short', async () => {
    let available = 0.5
    await using mags = await startSleepServer({ deps: { memoryAvailable: async () => available } })
    const ids: string[] = []
    for (const workspace_id of ['a', 'b', 'c']) {
      ids.push(await asleep(mags, { workspace_id }))
      await mags.pass(1000)
    }
    await mags.pass(checkMs)
    const stages = () => Promise.all(ids.map(async (id) => (await mags.status(id)).sleep_stage))
    expect(await stages()).toEqual(['frozen', 'frozen', 'frozen'])
    available = 0.05
    mags.host.beforeHibernate = (sandbox) => {
      if (mags.host.sandboxes.size === 2) available = 0.5
      expect(sandbox.state).toBe('asleep')
    }
    await mags.pass(checkMs)
    await until(stages).toEqual(['released', 'released', 'frozen'])
  })

  it('wakes from its workspace when the sleeping sandbox was lost, or does not come back', async () => {
    await using mags = await startSleepServer()
    const id = await asleep(mags, { script: 'write /a one', workspace_id: 'w' })
    await onlySandbox(mags).destroy()
    await until(async () => (await mags.status(id)).sleep_stage).toBe('released')
    expect((await mags.call('POST', `/mags-jobs/${id}/exec`, { command: 'read /a' })).body).toMatchObject({ stdout: 'one\n' })
    await mags.call('POST', `/mags-jobs/${id}/sleep`)
    mags.host.beforeWake = () => {
      throw new MagsError('sandbox_failed', 'the snapshot is damaged')
    }
    expect((await mags.call('POST', `/mags-jobs/${id}/exec`, { command: 'read /a' })).body).toMatchObject({ stdout: 'one\n' })
    expect((await systemRows(mags, id)).filter((row) => row.startsWith('the sleeping sandbox'))).toEqual([
      'the sleeping sandbox was lost; the next wake makes a new one from the workspace',
      'the sleeping sandbox could not go on: the snapshot is damaged; a new one is made from the workspace',
    ])
    await until(() => mags.host.sandboxes.size).toBe(1)
  })

  it('ends as error when a sleeping sandbox without a workspace was lost', async () => {
    await using mags = await startSleepServer()
    const id = await asleep(mags)
    await onlySandbox(mags).destroy()
    expect(await mags.ended(id)).toMatchObject({ status: 'error', error: 'the sandbox was lost', sleep_stage: null })
  })

  it('tries again when no new sandbox can be had', async () => {
    await using mags = await startSleepServer()
    const id = await asleep(mags, { script: 'write /a one', workspace_id: 'w' })
    await mags.call('POST', `/mags-jobs/${id}/sleep`, { release: true })
    mags.beforeAcquire = () => {
      throw new MagsError('sandbox_failed', 'crun: no space left on device')
    }
    expect(await mags.call('POST', `/mags-jobs/${id}/wake`)).toMatchObject({
      status: 502,
      body: { code: 'wake_failed', error: 'the job could not be woken: crun: no space left on device' },
    })
    expect(await mags.status(id)).toMatchObject({ status: 'sleeping', sleep_stage: 'released' })
    mags.beforeAcquire = () => undefined
    expect(await mags.call('POST', `/mags-jobs/${id}/wake`)).toMatchObject({ status: 200 })
  })

  it('keeps what could not be saved, and goes on from it', async () => {
    await using mags = await startSleepServer()
    const id = await asleep(mags, { script: 'write /a one', workspace_id: 'w' })
    onlySandbox(mags).files.put('/b', 'late')
    mags.host.workspaces.fault = unavailable()
    expect((await mags.call('POST', `/mags-jobs/${id}/sleep`, { release: true })).body).toMatchObject({ sleep_stage: 'released' })
    mags.host.workspaces.fault = undefined
    expect((await mags.call('POST', `/mags-jobs/${id}/exec`, { command: 'read /b' })).body).toMatchObject({ stdout: 'late\n' })
  })
})
