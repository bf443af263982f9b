import { MagsError } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { openEngine } from '../testing/engine.ts'
import { FakeTimers } from '../testing/fake-timers.ts'
import { backoffSecondsOf } from './retry-job.ts'

const until = <T>(probe: () => T) => expect.poll(probe, { timeout: 10_000, interval: 5 })

describe('a job with retries', () => {
  it('is tried again in the same row and the same log, which followers see to its end', async () => {
    let tries = 0
    const behaviour = async ({ stdout }: { stdout: (bytes: string) => Promise<unknown> }) => {
      tries++
      await stdout(`try ${tries}\nand more\n`)
      return { kind: 'exited', exitCode: tries === 3 ? 0 : tries } as const
    }
    await using engine = await openEngine({ behaviour })
    engine.dispatcher.start()
    const job = await engine.start({ maxRetries: 2 })
    const log = engine.dispatcher.find(job.requestId)?.log
    expect(await engine.ended(job)).toMatchObject({ status: 'completed', exitCode: 0, error: null, attempt: 3, warm: true })
    expect(log?.ended).toEqual({ status: 'completed', exitCode: 0 })
    expect(await engine.rows(job)).toEqual([
      'stdout try 1',
      'stdout and more',
      'system attempt 1 of 3 failed: the script ended with exit code 1; the next begins now',
      'stdout try 2',
      'stdout and more',
      'system attempt 2 of 3 failed: the script ended with exit code 2; the next begins now',
      'stdout try 3',
      'stdout and more',
    ])
    expect(log?.safeOffsets()).toEqual({ stdout: 15, stderr: 0 })
    await until(() => engine.host.sandboxes.size).toBe(0)
  })

  it('ends as it did the last time when there are none left', async () => {
    await using engine = await openEngine()
    engine.dispatcher.start()
    const job = await engine.start({ script: 'exit 7', maxRetries: 1 })
    expect(await engine.ended(job)).toMatchObject({ status: 'error', exitCode: 7, attempt: 2, error: 'the script ended with exit code 7' })
  })

  it('waits twice as long before each', async () => {
    const timers = new FakeTimers()
    let now = Date.parse('2026-01-01T00:00:00.000Z')
    await using engine = await openEngine({ timers, clock: () => now })
    engine.dispatcher.start()
    const job = await engine.start({ script: 'exit 1', maxRetries: 2, retryBackoffSeconds: 5 })
    await until(() => timers.pending.includes(5000)).toBe(true)
    expect(await engine.store.get(job.requestId)).toMatchObject({
      ...{ status: 'pending', attempt: 2, notBefore: '2026-01-01T00:00:05.000Z', vmId: null, startedAt: null, exitCode: null },
    })
    now += 5000
    timers.end(5000)
    await until(() => timers.pending.includes(10_000)).toBe(true)
    expect((await engine.rows(job)).at(-1)).toBe('system attempt 2 of 3 failed: the script ended with exit code 1; the next begins in 10 s')
    const run = engine.dispatcher.find(job.requestId)
    await run?.stop()
    expect(await engine.ended(job)).toMatchObject({ status: 'stopped', attempt: 3 })
    expect(engine.host.acquired).toHaveLength(2)
  })

  it('is tried again after a timeout, a lost sandbox, and when none could be made', async () => {
    const faults = [new MagsError('sandbox_failed', 'crun: no')]
    const beforeAcquire = () => {
      const fault = faults.pop()
      if (fault) throw fault
    }
    await using engine = await openEngine({ beforeAcquire })
    engine.dispatcher.start()
    const made = await engine.start({ maxRetries: 1 })
    expect(await engine.ended(made)).toMatchObject({ status: 'completed', attempt: 2 })
    const lost = await engine.start({ script: 'wait', maxRetries: 1 })
    for (const attempt of [1, 2]) {
      await until(() => engine.host.sandboxes.size).toBe(1)
      await until(async () => (await engine.store.get(lost.requestId))?.vmId === null).toBe(false)
      expect(await engine.store.get(lost.requestId)).toMatchObject({ status: 'running', attempt })
      for (const sandbox of engine.host.sandboxes.values()) await sandbox.destroy()
    }
    expect(await engine.ended(lost)).toMatchObject({ status: 'error', error: 'the sandbox was lost', attempt: 2 })
    const slow = await engine.start({ script: 'wait', timeoutSeconds: 1, maxRetries: 1 })
    expect(await engine.ended(slow)).toMatchObject({ status: 'error', exitCode: 124, attempt: 2 })
  })

  it('is not tried again after a stop, nor when that cannot help', async () => {
    const beforeAcquire = ({ image }: { image: string }) => {
      if (image === 'none') throw new MagsError('not_available', 'no such image')
    }
    await using engine = await openEngine({ beforeAcquire })
    engine.dispatcher.start()
    const impossible = await engine.start({ image: 'none', maxRetries: 3 })
    expect(await engine.ended(impossible)).toMatchObject({ status: 'error', attempt: 1 })
    const stopped = await engine.start({ script: 'wait', maxRetries: 3 })
    await until(async () => (await engine.store.get(stopped.requestId))?.status).toBe('running')
    await engine.dispatcher.find(stopped.requestId)?.stop()
    expect(await engine.store.get(stopped.requestId)).toMatchObject({ status: 'stopped', attempt: 1 })
  })

  it('waits on over a restart of the server, and drops nothing of the next try', async () => {
    await using first = await openEngine()
    first.dispatcher.start()
    const job = await first.start({ script: 'echo some words\nexit 1', maxRetries: 1, retryBackoffSeconds: 3600 })
    await until(async () => (await first.store.get(job.requestId))?.attempt).toBe(2)
    await first.dispatcher.close()
    await using second = await openEngine({ directory: first.directory, clock: () => Date.now() + 3_600_000 })
    await second.recover()
    second.dispatcher.start()
    expect(await second.ended(job)).toMatchObject({ status: 'error', exitCode: 1, attempt: 2 })
    expect(await second.rows(job)).toEqual([
      'stdout some words',
      'system attempt 1 of 2 failed: the script ended with exit code 1; the next begins in 3600 s',
      'stdout some words',
    ])
  })

  it('is tried again when the server died while it ran', async () => {
    await using first = await openEngine()
    first.dispatcher.start()
    const [again, over] = [await first.start({ script: 'wait', maxRetries: 1 }), await first.start({ script: 'wait' })]
    for (const { requestId } of [again, over]) await until(async () => (await first.store.get(requestId))?.status).toBe('running')
    await first.dispatcher.close()
    await using second = await openEngine({ directory: first.directory, behaviour: () => ({ kind: 'exited', exitCode: 0 }) })
    await second.recover()
    second.dispatcher.start()
    expect(await second.ended(again)).toMatchObject({ status: 'completed', attempt: 2 })
    expect(await second.rows(again)).toEqual(['system attempt 1 of 2 failed: the server stopped while this job ran; the next begins now'])
    expect(await second.ended(over)).toMatchObject({ status: 'error', error: 'the server stopped while this job ran' })
  })

  it('is not tried again when the server ends it, and waits for the next one when it failed by itself', async () => {
    await using engine = await openEngine()
    engine.dispatcher.start()
    const [ended, waits] = [
      await engine.start({ script: 'wait', maxRetries: 1 }),
      await engine.start({ script: 'exit 1', maxRetries: 1, retryBackoffSeconds: 60 }),
    ]
    await until(async () => (await engine.store.get(ended.requestId))?.status).toBe('running')
    await until(async () => (await engine.store.get(waits.requestId))?.attempt).toBe(2)
    await engine.dispatcher.drain(0, 'the server ends')
    expect(await engine.store.get(ended.requestId)).toMatchObject({ status: 'error', error: 'the server ends', attempt: 1 })
    expect(await engine.store.get(waits.requestId)).toMatchObject({ status: 'pending', attempt: 2 })
    expect(engine.dispatcher.find(waits.requestId)).toBeUndefined()
  })
})

describe('backoffSecondsOf', () => {
  it('doubles, up to a day', () => {
    const tries = { maxRetries: 100, retryBackoffSeconds: 3 }
    expect([1, 2, 3, 4].map((attempt) => backoffSecondsOf({ ...tries, attempt }))).toEqual([3, 6, 12, 24])
    expect(backoffSecondsOf({ ...tries, attempt: 90 })).toBe(86_400)
    expect(backoffSecondsOf({ ...tries, retryBackoffSeconds: 0, attempt: 90 })).toBe(0)
  })
})
