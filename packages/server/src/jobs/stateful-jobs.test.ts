import { describe, expect, it } from 'vitest'
import { type Engine, openEngine } from '../testing/engine.ts'
import { FakeTimers } from '../testing/fake-timers.ts'
import { makeJob } from '../testing/make-job.ts'
import type { Job } from './job.ts'

const until = <T>(probe: () => T) => expect.poll(probe, { timeout: 10_000, interval: 5 })
const stateful = { kind: 'job', workspaceId: 'w', workspaceScope: '/workspace' } as const

const statusOf = async (engine: Engine, { requestId }: Job) => (await engine.store.get(requestId))?.status
const stop = async (engine: Engine, { requestId }: Job) => await engine.dispatcher.find(requestId)?.stop()

async function running(engine: Engine, change: Partial<Job>): Promise<Job> {
  const job = await engine.start({ script: 'wait', ...change })
  await until(() => statusOf(engine, job)).toBe('running')
  return job
}

describe('stateful jobs', () => {
  it('make their workspace, and have what the one before has left there', async () => {
    await using engine = await openEngine()
    engine.dispatcher.start()
    const jobs = await Promise.all([
      engine.start({ ...stateful, script: 'write /workspace/a one', diskGb: 7 }),
      engine.start({ ...stateful, script: 'read /workspace/a', diskGb: 7 }),
    ])
    for (const job of jobs) expect(await engine.ended(job)).toMatchObject({ status: 'completed', diskGb: 7, workspaceStorageId: expect.any(String) })
    expect(await engine.workspaces.find('local', 'w')).toMatchObject({ diskGb: 7, holderRequestId: null, fence: 2, imageDigest: 'sha256:d12' })
    expect(await engine.rows(jobs[1])).toContain('stdout one')
    expect(engine.host.acquired[0]?.workspace).toMatchObject({ scope: '/workspace', fence: 1 })
  })

  it('wait for each other in the order of their arrival, say so once, and keep no other job waiting', async () => {
    await using engine = await openEngine()
    engine.dispatcher.start()
    const first = await running(engine, stateful)
    const [second, third] = [await engine.start({ ...stateful, script: 'wait', priority: 1 }), await engine.start({ ...stateful, script: 'echo', priority: 9 })]
    expect(await engine.ended(await engine.start({}))).toMatchObject({ status: 'completed' })
    const words = `system waits for workspace 'w', which job ${first.requestId} has`
    for (const job of [second, third]) await until(() => engine.rows(job)).toEqual([words])
    expect(engine.dispatcher.pending).toBe(2)
    expect((await engine.store.find('local', 'w'))?.requestId).toBe(first.requestId)
    await stop(engine, first)
    await until(() => statusOf(engine, second)).toBe('running')
    expect(await statusOf(engine, third)).toBe('pending')
    await stop(engine, second)
    expect(await engine.ended(third)).toMatchObject({ status: 'completed' })
    expect(await engine.rows(third)).toEqual([words, 'stdout '])
  })

  it('can be stopped while they wait, wherever in the line', async () => {
    await using engine = await openEngine()
    engine.dispatcher.start()
    const first = await running(engine, stateful)
    const [second, third, last] = [await engine.start(stateful), await engine.start(stateful), await engine.start(stateful)]
    await until(async () => (await engine.rows(second)).length).toBe(1)
    for (const job of [third, second]) {
      await stop(engine, job)
      expect(await statusOf(engine, job)).toBe('stopped')
    }
    await stop(engine, first)
    expect(await engine.ended(last)).toMatchObject({ status: 'completed' })
  })

  it('wait for other kinds of jobs, and for those of other servers by looking again', async () => {
    const timers = new FakeTimers()
    await using engine = await openEngine({ timers })
    engine.dispatcher.start()
    const { requestId } = (await engine.ended(await engine.start(stateful))) as Job
    const workspace = await engine.workspaces.find('local', 'w')
    if (workspace === undefined) throw new Error('no workspace')
    // A job that another server runs.
    const elsewhere = makeJob({ status: 'running', workspaceId: 'w', workspaceStorageId: workspace.storageId })
    await engine.commits.write(async (transaction) => {
      await engine.store.insert(transaction, elsewhere)
      await engine.workspaces.hold(transaction, workspace, { requestId: elsewhere.requestId, diskGb: 2, baseWorkspaceId: null })
    })
    const job = await engine.start(stateful)
    await until(() => engine.rows(job)).toEqual([`system waits for workspace 'w', which job ${elsewhere.requestId} has`])
    await until(() => timers.pending.includes(3000)).toBe(true)
    timers.end(3000)
    await until(() => timers.pending.includes(3000)).toBe(true)
    expect(await statusOf(engine, job)).toBe('pending')
    const outcome = { status: 'completed', exitCode: 0, error: null, timings: elsewhere.timings, completedAt: elsewhere.createdAt } as const
    await engine.store.finish(elsewhere.requestId, outcome)
    timers.end(3000)
    expect(await engine.ended(job)).toMatchObject({ status: 'completed' })
    expect(requestId).not.toBe(job.requestId)
  })

  it('end as error when the workspace cannot be had for another reason', async () => {
    await using engine = await openEngine()
    engine.dispatcher.start()
    await engine.ended(await engine.start({ ...stateful, diskGb: 5 }))
    const [other, next] = [await engine.start({ ...stateful, image: 'alpine' }), await engine.start({ ...stateful, diskGb: 3 })]
    const words = "image: workspace 'w' was made on image debian-12, and this job asks for alpine; ask for image debian-12, or use another workspace"
    expect(await engine.ended(other)).toMatchObject({ status: 'error', error: words, workspaceStorageId: null })
    // A disk only grows.
    expect(await engine.ended(next)).toMatchObject({ status: 'completed', diskGb: 5 })
  })

  it('wait again after a crash, or go on with the workspace they had got', async () => {
    await using first = await openEngine()
    const hung = Promise.withResolvers<never>()
    hung.promise.catch(() => undefined)
    await using crashed = await openEngine({ directory: first.directory, ignoresAbort: true, beforeAcquire: () => hung.promise })
    crashed.dispatcher.start()
    const [holder, waiter] = [await crashed.start({ ...stateful, script: 'echo' }), await crashed.start({ ...stateful, script: 'echo' })]
    await until(async () => (await crashed.store.get(holder.requestId))?.workspaceStorageId).not.toBe(null)
    await until(async () => (await crashed.rows(waiter)).length).toBe(1)
    await using second = await openEngine({ directory: first.directory })
    // The one that died may have got as far as this.
    second.host.workspaces.claim({ storageId: (await second.store.get(holder.requestId))?.workspaceStorageId ?? '', fence: 1 })
    await second.recover()
    second.dispatcher.start()
    expect(await second.ended(holder)).toMatchObject({ status: 'completed', workspaceFence: 2 })
    expect(await second.ended(waiter)).toMatchObject({ status: 'completed', workspaceFence: 3 })
    hung.reject(new Error('over'))
  })

  it('let others have the workspace between two tries', async () => {
    await using engine = await openEngine()
    engine.dispatcher.start()
    const failing = await engine.start({ ...stateful, script: 'write /workspace/a kept\nexit 1', maxRetries: 1, retryBackoffSeconds: 3600 })
    await until(async () => (await engine.store.get(failing.requestId))?.attempt).toBe(2)
    const other = await engine.start({ ...stateful, script: 'read /workspace/a' })
    expect(await engine.ended(other)).toMatchObject({ status: 'completed', workspaceFence: 2 })
    expect(await engine.rows(other)).toContain('stdout kept')
    expect(await engine.store.get(failing.requestId)).toMatchObject({ status: 'pending', workspaceStorageId: null })
  })

  it('keep an ordinary workspace between two tries', async () => {
    await using engine = await openEngine()
    engine.dispatcher.start()
    await engine.ended(await engine.start(stateful))
    const workspace = await engine.workspaces.find('local', 'w')
    if (workspace === undefined) throw new Error('no workspace')
    const job = makeJob({ script: 'exit 1', workspaceId: 'w', workspaceStorageId: workspace.storageId, workspaceFence: 2, maxRetries: 1 })
    await engine.commits.write(async (transaction) => {
      await engine.store.insert(transaction, job)
      await engine.workspaces.hold(transaction, workspace, { requestId: job.requestId, diskGb: 2, baseWorkspaceId: null })
    })
    const waiter = await engine.start(stateful)
    await until(async () => (await engine.rows(waiter)).length).toBe(1)
    engine.dispatcher.add(job, performance.now())
    expect(await engine.ended(job)).toMatchObject({ status: 'error', attempt: 2, workspaceFence: 3 })
    expect(await engine.ended(waiter)).toMatchObject({ status: 'completed', workspaceFence: 4 })
  })
})
