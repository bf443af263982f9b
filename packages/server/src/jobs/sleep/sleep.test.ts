import { MagsError } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { checkMs, isSleeping, lastsFor, onlySandbox, resting, running, type SleepServer, startSleepServer, systemRows } from '../../testing/sleep-server.ts'

const until = <T>(probe: () => T) => expect.poll(probe, { timeout: 10_000, interval: 5 })
const unavailable = () => new MagsError('object_store_unavailable', 'the object store does not answer')
const wait = { script: 'wait', persistent: true }

describe('a job that nobody uses', () => {
  it('sleeps after ten minutes, and not before', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags)
    await mags.pass(599_999)
    expect(await mags.status(id)).toMatchObject({ status: 'running', sleeping: false, sleep_stage: null })
    await mags.pass(checkMs)
    await isSleeping(mags, id)
    expect(await mags.status(id)).toMatchObject({ sleeping: true, sleep_stage: 'frozen', slept_at: expect.any(String), woken_at: null, exit_code: 0 })
    expect(onlySandbox(mags)).toMatchObject({ state: 'asleep', sleeps: 1 })
    // The row comes after the status.
    await until(() => systemRows(mags, id)).toEqual([expect.stringMatching(/^put to sleep: nothing used it for 1\d min$/)])
    expect((await mags.call('GET', '/mags-jobs/pool-status')).body).toMatchObject({ sleeping_vms: 1, busy_vms: 0 })
    expect((await mags.call('GET', '/mags-jobs?status=sleeping')).body).toMatchObject({ total: 1 })
  })

  it('is not kept awake by who looks at it', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags)
    for (let minute = 0; minute < 10; minute++) {
      for (const path of [`/${id}/status`, `/${id}/logs`, '', '/pool-status']) await mags.call('GET', `/mags-jobs${path}`)
      await mags.pass(checkMs)
    }
    await isSleeping(mags, id)
    for (const path of [`/${id}/status`, `/${id}/logs`, '']) await mags.call('GET', `/mags-jobs${path}`)
    await mags.pass(checkMs)
    expect((await mags.status(id)).status).toBe('sleeping')
    expect(onlySandbox(mags).wakes).toBe(0)
  })

  it.each([
    ['exec', (mags: SleepServer, id: string) => mags.call('POST', `/mags-jobs/${id}/exec`, { command: 'echo' })],
    ['files', (mags: SleepServer, id: string) => mags.call('GET', `/mags-jobs/${id}/files/list?path=/`)],
    ['access', (mags: SleepServer, id: string) => mags.call('POST', `/mags-jobs/${id}/access`, { port: 8080 })],
  ])('is kept awake by %s', async (_name, use) => {
    await using mags = await startSleepServer()
    const id = await resting(mags)
    for (let turn = 0; turn < 3; turn++) {
      await mags.pass(590_000)
      expect((await use(mags, id)).status).toBe(200)
    }
    expect((await mags.status(id)).status).toBe('running')
    await mags.pass(600_000)
    await isSleeping(mags, id)
  })

  it.each(['http', 'ssh'] as const)('is kept awake by an open connection (%s)', async (reason) => {
    await using mags = await startSleepServer()
    const id = await resting(mags)
    const lease = await mags.server.directory.open(id, reason)
    await mags.pass(3_600_000)
    expect((await mags.status(id)).status).toBe('running')
    lease[Symbol.dispose]()
    lease[Symbol.dispose]()
    await mags.pass(590_000)
    expect((await mags.status(id)).status).toBe('running')
    await mags.pass(10_000)
    await isSleeping(mags, id)
  })

  it('is kept awake by its script, until its URL was used', async () => {
    await using mags = await startSleepServer()
    const id = await running(mags, wait)
    await mags.pass(3_600_000)
    expect((await mags.status(id)).status).toBe('running')
    const lease = await mags.server.directory.open(id, 'http')
    lease[Symbol.dispose]()
    await mags.pass(600_000)
    await isSleeping(mags, id)
  })

  it('counts from the end of its script', async () => {
    await using mags = await startSleepServer()
    const id = await running(mags, wait)
    await mags.pass(3_600_000)
    onlySandbox(mags).end({ kind: 'exited', exitCode: 0 })
    await until(async () => (await mags.status(id)).exit_code).toBe(0)
    await mags.pass(590_000)
    expect((await mags.status(id)).status).toBe('running')
    await mags.pass(10_000)
    await isSleeping(mags, id)
  })

  it('stays awake when it must not sleep, or does not stay', async () => {
    await using mags = await startSleepServer()
    const never = await resting(mags, { no_sleep: true })
    const passing = await running(mags, { script: 'wait' })
    await mags.pass(3_600_000)
    expect((await mags.status(never)).status).toBe('running')
    expect((await mags.status(passing)).status).toBe('running')
    await mags.call('PATCH', `/mags-jobs/${never}`, { no_sleep: false })
    await mags.pass(checkMs)
    await isSleeping(mags, never)
  })

  it('is saved before it sleeps, and stays awake when that fails', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags, { script: 'write /a one', workspace_id: 'w' })
    mags.host.workspaces.fault = unavailable()
    for (let turn = 0; turn < 3; turn++) {
      await until(async () => {
        await mags.pass(600_000)
        return mags.host.workspaces.attempts
      }).toBeGreaterThan(turn)
    }
    expect((await mags.status(id)).status).toBe('running')
    expect(onlySandbox(mags).sleeps).toBe(0)
    const told = (await systemRows(mags, id)).filter((row) => row.startsWith('cannot be put to sleep'))
    expect(told).toEqual(['cannot be put to sleep at the moment: the object store does not answer; it stays awake, and that is tried again'])
    mags.host.workspaces.fault = undefined
    await until(async () => {
      await mags.pass(checkMs)
      return (await mags.status(id)).status
    }).toBe('sleeping')
    expect(await mags.status(id)).toMatchObject({ workspace_version: 1, workspace_unsaved_since: null })
  })

  it('is not saved any more while it sleeps, and again once it is awake', async () => {
    const syncIntervalMs = 29_000
    await using mags = await startSleepServer({ deps: { limits: { syncIntervalMs } } })
    const id = await resting(mags, { script: 'write /a one', workspace_id: 'w' })
    await mags.call('POST', `/mags-jobs/${id}/sleep`)
    expect(mags.timers.pending).not.toContain(syncIntervalMs)
    const { attempts } = mags.host.workspaces
    expect(await mags.call('POST', `/mags-jobs/${id}/sync`)).toMatchObject({ status: 200, body: { workspace_id: 'w', version: 1, bytes_uploaded: 0 } })
    expect(mags.host.workspaces.attempts).toBe(attempts)
    await mags.call('POST', `/mags-jobs/${id}/wake`)
    expect(mags.timers.pending).toContain(syncIntervalMs)
  })
})

describe('sleep and wake on request', () => {
  it('are idempotent, and say what became of it', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags)
    const sleep = () => mags.call('POST', `/mags-jobs/${id}/sleep`, {})
    const wake = () => mags.call('POST', `/mags-jobs/${id}/wake`, {})
    expect(await wake()).toMatchObject({ status: 200, body: { success: true, message: 'Job is awake', status: 'running', wake_duration_ms: null } })
    expect(await sleep()).toMatchObject({ status: 200, body: { success: true, message: 'Job sleeps', status: 'sleeping', sleep_stage: 'frozen' } })
    expect(await mags.status(id)).toMatchObject({ status: 'sleeping', sleep_stage: 'frozen' })
    expect(await sleep()).toMatchObject({ status: 200, body: { message: 'Job sleeps already' } })
    const woken = await wake()
    expect(woken).toMatchObject({ status: 200, body: { message: 'Job woken', status: 'running', wake_duration_ms: expect.any(Number) } })
    expect(woken.headers['server-timing']).toMatch(/^wake;dur=/)
    expect(await mags.status(id)).toMatchObject({
      status: 'running',
      sleep_stage: null,
      wake_reason: 'request',
      wake_duration_ms: expect.any(Number),
      woken_at: expect.any(String),
    })
    await until(async () => (await systemRows(mags, id)).map((row) => row.replace(/[\d.]+ ms/, 'N ms'))).toEqual([
      'put to sleep: on request',
      'woken by request in N ms',
    ])
  })

  it.each([
    [{ script: 'wait', name: 'n' }, 'bad_request', 'job n is not persistent: sleep needs a job submitted with persistent'],
    [
      { script: 'wait', name: 'n', persistent: true, no_sleep: true },
      'bad_request',
      "job n is never put to sleep (no_sleep); 'mags set n --sleep' changes that",
    ],
  ])('refuses %j', async (body, code, error) => {
    await using mags = await startSleepServer()
    const id = await running(mags, body)
    await lastsFor(mags, id)
    expect(await mags.call('POST', `/mags-jobs/${id}/sleep`)).toMatchObject({ status: 400, body: { code, error } })
  })

  it('refuses what is over, still starts, or is in use', async () => {
    const gate = Promise.withResolvers<void>()
    await using mags = await startSleepServer({ beforeRun: () => gate.promise })
    const id = await mags.submit({ ...wait, name: 'n' })
    await until(async () => (await mags.status(id)).status).toBe('running')
    const sleep = async () => (await mags.call('POST', '/mags-jobs/n/sleep')).body.error
    expect(await sleep()).toBe('job n is still starting; try again once its status is running')
    gate.resolve()
    const lease = await mags.server.directory.open(id, 'ssh')
    expect(await sleep()).toBe('job n is in use: a connection or command is open; close them, and try again')
    lease[Symbol.dispose]()
    expect(await sleep()).toBeUndefined()
    await mags.call('POST', '/mags-jobs/n/stop')
    expect(await sleep()).toBe('job n is over (status: stopped): sleep needs one that runs or sleeps')
    expect((await mags.call('POST', '/mags-jobs/n/wake')).body).toMatchObject({
      code: 'job_not_running',
      error: 'job n is over (status: stopped): wake needs one that runs or sleeps',
    })
  })

  it('gives the answer when the sandbox cannot be stopped', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags)
    mags.host.beforeSleep = () => {
      throw new MagsError('sandbox_failed', 'the freezer is broken')
    }
    expect(await mags.call('POST', `/mags-jobs/${id}/sleep`)).toMatchObject({ status: 500, body: { error: 'the freezer is broken' } })
    expect((await mags.status(id)).status).toBe('running')
    expect((await mags.call('POST', `/mags-jobs/${id}/exec`, { command: 'echo hi' })).body).toMatchObject({ stdout: 'hi\n' })
  })
})

describe('what wakes a sleeping job', () => {
  it.each([
    ['exec', (mags: SleepServer, id: string) => mags.call('POST', `/mags-jobs/${id}/exec`, { command: 'echo hi' })],
    ['files', (mags: SleepServer, id: string) => mags.call('GET', `/mags-jobs/${id}/files?path=/a`)],
    ['request', (mags: SleepServer, id: string) => mags.call('POST', `/mags-jobs/${id}/access`, { port: 3000 })],
  ])('%s', async (reason, use) => {
    await using mags = await startSleepServer()
    const id = await resting(mags, { script: 'write /a one' })
    await mags.call('POST', `/mags-jobs/${id}/sleep`)
    const answer = await use(mags, id)
    expect(answer.status).toBe(200)
    expect(await mags.status(id)).toMatchObject({ status: 'running', wake_reason: reason })
    if (reason === 'exec') expect(answer.headers['server-timing']).toMatch(/^wake;dur=[\d.]+, exec;dur=/)
  })

  it.each(['http', 'ssh'] as const)('%s, once for all who wait', async (reason) => {
    await using mags = await startSleepServer()
    const id = await resting(mags)
    await mags.call('POST', `/mags-jobs/${id}/sleep`)
    const leases = await Promise.all(Array.from({ length: 100 }, () => mags.server.directory.open(id, reason)))
    expect(onlySandbox(mags)).toMatchObject({ wakes: 1, state: 'awake' })
    expect(await mags.status(id)).toMatchObject({ status: 'running', wake_reason: reason })
    expect(leases[0]?.wokenAt).toBeGreaterThan(Date.now() - 60_000)
    for (const lease of leases) lease[Symbol.dispose]()
  })

  it('tells who waits why it cannot wake, and tries again', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags)
    await mags.call('POST', `/mags-jobs/${id}/sleep`)
    mags.host.beforeWake = () => {
      throw new MagsError('sandbox_failed', 'no memory left')
    }
    const answer = await mags.call('POST', `/mags-jobs/${id}/exec`, { command: 'echo' })
    expect(answer).toMatchObject({ status: 502, body: { code: 'wake_failed', error: 'the job could not be woken: no memory left' } })
    await expect(mags.server.directory.open(id, 'ssh')).rejects.toMatchObject({ code: 'wake_failed', message: expect.stringContaining('no memory left') })
    // Who visits a URL may be anybody.
    await expect(mags.server.directory.open(id, 'http')).rejects.toMatchObject({ code: 'wake_failed', message: expect.not.stringContaining('memory') })
    expect((await mags.status(id)).status).toBe('sleeping')
    mags.host.beforeWake = () => undefined
    expect(await mags.call('POST', `/mags-jobs/${id}/wake`)).toMatchObject({ status: 200 })
  })

  it('lets one go who does not want to wait, and wakes for the others', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags)
    await mags.call('POST', `/mags-jobs/${id}/sleep`)
    const gate = Promise.withResolvers<void>()
    mags.host.beforeWake = () => gate.promise
    const leaves = new AbortController()
    const [impatient, patient] = [mags.server.directory.open(id, 'http', leaves.signal), mags.server.directory.open(id, 'ssh')]
    leaves.abort(new Error('gone'))
    await expect(impatient).rejects.toThrow('gone')
    gate.resolve()
    ;(await patient)[Symbol.dispose]()
    expect(onlySandbox(mags).wakes).toBe(1)
  })
})

describe('races', () => {
  it('gives way at once to who comes while the workspace is saved', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags, { script: 'write /a one', workspace_id: 'w' })
    const gate = Promise.withResolvers<void>()
    mags.host.workspaces.beforeSave = () => gate.promise
    const sleep = mags.call('POST', `/mags-jobs/${id}/sleep`)
    await until(() => mags.host.workspaces.attempts).toBe(1)
    const lease = await mags.server.directory.open(id, 'http')
    gate.resolve()
    expect(await sleep).toMatchObject({ status: 400, body: { code: 'job_not_running' } })
    expect(onlySandbox(mags)).toMatchObject({ sleeps: 0, state: 'awake' })
    expect((await mags.status(id)).status).toBe('running')
    lease[Symbol.dispose]()
    expect(await mags.call('POST', `/mags-jobs/${id}/sleep`)).toMatchObject({ status: 200 })
  })

  it('freezes to the end, and wakes then, for who comes during it', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags)
    const [reached, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    mags.host.beforeSleep = () => {
      reached.resolve()
      return gate.promise
    }
    const sleep = mags.call('POST', `/mags-jobs/${id}/sleep`)
    await reached.promise
    const leases = [mags.server.directory.open(id, 'http'), mags.server.directory.open(id, 'ssh')]
    gate.resolve()
    for (const lease of await Promise.all(leases)) lease[Symbol.dispose]()
    await sleep
    expect(onlySandbox(mags)).toMatchObject({ sleeps: 1, wakes: 1, state: 'awake' })
    expect(await mags.status(id)).toMatchObject({ status: 'running', wake_reason: 'http' })
  })

  it.each(['frozen', 'hibernated', 'released'])('of two wakes and a stop, the stop wins (%s)', async (stage) => {
    await using mags = await startSleepServer()
    mags.host.hibernates = stage === 'hibernated'
    const id = await resting(mags, { script: 'write /a one', ...(stage === 'released' ? { workspace_id: 'w' } : {}) })
    expect((await mags.call('POST', `/mags-jobs/${id}/sleep`, { release: stage !== 'frozen' })).body).toMatchObject({ sleep_stage: stage })
    const [reached, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const hold = () => {
      reached.resolve()
      return gate.promise
    }
    mags.host.beforeWake = hold
    mags.beforeAcquire = hold
    const wakes = [mags.server.directory.open(id, 'http'), mags.server.directory.open(id, 'ssh')]
    const outcomes = Promise.allSettled(wakes)
    await reached.promise
    const stop = mags.call('POST', `/mags-jobs/${id}/stop`)
    // It has begun once a request that came later is answered.
    await mags.status(id)
    gate.resolve()
    expect(await stop).toMatchObject({ status: 200 })
    expect((await outcomes).map((outcome) => (outcome.status === 'rejected' ? outcome.reason.code : 'open'))).toEqual(['job_not_running', 'job_not_running'])
    expect(await mags.status(id)).toMatchObject({ status: 'stopped', sleep_stage: null })
    await until(() => mags.host.sandboxes.size).toBe(0)
  })
})

describe('stop of a sleeping job', () => {
  it.each(['frozen', 'hibernated', 'released'])('ends it (%s)', async (stage) => {
    await using mags = await startSleepServer()
    mags.host.hibernates = stage === 'hibernated'
    const id = await running(mags, { script: 'write /a one\nwait', persistent: true, workspace_id: 'w' })
    await mags.call('POST', `/mags-jobs/${id}/sleep`, { release: stage !== 'frozen' })
    expect(await mags.status(id)).toMatchObject({ status: 'sleeping', sleep_stage: stage })
    expect(await mags.call('POST', `/mags-jobs/${id}/stop`)).toMatchObject({ status: 200, body: { message: 'Job stopped' } })
    expect(await mags.status(id)).toMatchObject({ status: 'stopped', error: null, workspace_version: 1 })
    await until(() => mags.host.sandboxes.size).toBe(0)
    // The workspace is free.
    const next = await mags.submit({ script: 'read /a', workspace_id: 'w' })
    expect(await mags.ended(next)).toMatchObject({ status: 'completed' })
    expect((await mags.rows(next)).logs).toMatchObject([{ message: 'one' }])
  })

  it('does not bring back from the disk what nobody keeps', async () => {
    await using mags = await startSleepServer()
    mags.host.hibernates = true
    const id = await running(mags, wait)
    await mags.call('POST', `/mags-jobs/${id}/sleep`, { release: true })
    const sandbox = onlySandbox(mags)
    await mags.call('POST', `/mags-jobs/${id}/stop`)
    expect(await mags.status(id)).toMatchObject({ status: 'stopped' })
    expect(sandbox).toMatchObject({ wakes: 0, destroyed: 1 })
  })
})
