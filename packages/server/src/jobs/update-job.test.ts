import { MagsError } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { onlySandbox, resting, running, type SleepServer, startSleepServer } from '../testing/sleep-server.ts'

const patch = (mags: SleepServer, id: string, body: Record<string, unknown>) => mags.call('PATCH', `/mags-jobs/${id}`, body)

describe('egress rules', () => {
  it('are what the sandbox is made with', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags, { egress: { allow: ['example.org'], deny: ['203.0.113.0/24'] } })
    expect(mags.host.acquired[0]?.egress).toEqual({ allow: ['example.org'], deny: ['203.0.113.0/24'] })
    expect(await mags.status(id)).toMatchObject({ egress: { allow: ['example.org'], deny: ['203.0.113.0/24'] }, egress_bytes: null })
    const open = await resting(mags)
    expect(mags.host.acquired[1]?.egress).toBeUndefined()
    expect(await mags.status(open)).toMatchObject({ egress: null })
  })

  it('are changed at once, also while it sleeps and for its next sandbox', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags, { workspace_id: 'w' })
    expect((await patch(mags, id, { egress: 'none' })).status).toBe(200)
    expect(onlySandbox(mags).egress).toBe('none')
    await mags.call('POST', `/mags-jobs/${id}/sleep`)
    await patch(mags, id, { egress: { deny: ['example.org'] } })
    expect(onlySandbox(mags)).toMatchObject({ egress: { deny: ['example.org'] }, state: 'asleep' })
    await mags.call('POST', `/mags-jobs/${id}/sleep`, { release: true })
    await patch(mags, id, { egress: 'none' })
    await mags.call('POST', `/mags-jobs/${id}/wake`)
    expect(onlySandbox(mags).egress).toBe('none')
    expect(await mags.status(id)).toMatchObject({ egress: 'none' })
    await patch(mags, id, { egress: null })
    expect(onlySandbox(mags).egress).toEqual({})
    expect(await mags.status(id)).toMatchObject({ egress: null })
  })

  it('hold for a sandbox that was being made with others', async () => {
    const gate = Promise.withResolvers<void>()
    await using mags = await startSleepServer({ beforeRun: () => gate.promise })
    const id = await mags.submit({ script: 'wait', persistent: true })
    await expect.poll(async () => (await mags.status(id)).status, { timeout: 10_000 }).toBe('running')
    expect((await patch(mags, id, { egress: 'none' })).status).toBe(200)
    gate.resolve()
    await expect.poll(() => onlySandbox(mags).egress, { timeout: 10_000 }).toBe('none')
  })

  it('hold for a sandbox that was being made anew', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags, { workspace_id: 'w', egress: { allow: ['example.org'] } })
    await mags.call('POST', `/mags-jobs/${id}/sleep`, { release: true })
    const arrived = Promise.withResolvers<void>()
    const gate = Promise.withResolvers<void>()
    mags.beforeAcquire = () => {
      arrived.resolve()
      return gate.promise
    }
    const waking = mags.call('POST', `/mags-jobs/${id}/wake`)
    await arrived.promise
    expect((await patch(mags, id, { egress: 'none' })).status).toBe(200)
    gate.resolve()
    expect((await waking).status).toBe(200)
    await expect.poll(() => onlySandbox(mags).egress, { timeout: 10_000 }).toBe('none')
    // A later one is not undone by the next waking.
    await patch(mags, id, { egress: { deny: ['example.org'] } })
    await mags.call('POST', `/mags-jobs/${id}/sleep`, { release: true })
    await mags.call('POST', `/mags-jobs/${id}/wake`)
    expect(onlySandbox(mags).egress).toEqual({ deny: ['example.org'] })
  })

  it('that cannot be kept are refused, and not stored', async () => {
    await using mags = await startSleepServer()
    const id = await resting(mags)
    onlySandbox(mags).setEgress = async () => {
      throw new MagsError('bad_request', 'egress.allow.0: this machine cannot do that')
    }
    expect(await patch(mags, id, { egress: { allow: ['example.org'] } })).toMatchObject({
      status: 400,
      body: { error: 'egress.allow.0: this machine cannot do that' },
    })
    expect(await mags.status(id)).toMatchObject({ egress: null })
    expect((await patch(mags, id, { egress: 'all' })).status).toBe(400)
  })
})

describe('a change', () => {
  it('needs a persistent job for what only those have', async () => {
    await using mags = await startSleepServer()
    const id = await running(mags, { script: 'wait' })
    expect((await patch(mags, id, { no_sleep: true })).body.error).toBe('no_sleep: needs a persistent job')
    expect((await patch(mags, id, { visibility: 'token' })).body.error).toBe('visibility: needs a persistent job')
    expect((await patch(mags, id, { port: 0 })).body.error).toBe('port: must be a whole number from 1 to 65,535')
    expect((await patch(mags, id, { port: 3000 })).status).toBe(200)
  })
})
