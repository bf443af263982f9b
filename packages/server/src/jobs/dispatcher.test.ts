import type { SandboxSpec } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { openEngine } from '../testing/engine.ts'
import { FakeTimers } from '../testing/fake-timers.ts'
import type { JobRun } from './job-run.ts'

const until = <T>(probe: () => T) => expect.poll(probe, { timeout: 10_000, interval: 5 })

/** Hands out sandboxes in the order they were asked for, so many at a time as a test says. */
class Counter {
  readonly #waiting: (() => void)[] = []
  /** Whom they went to, by the memory they asked for. */
  readonly served: number[] = []

  readonly beforeAcquire = async ({ memoryMb }: SandboxSpec): Promise<void> => {
    await new Promise<void>((resolve) => this.#waiting.push(resolve))
    this.served.push(memoryMb)
  }

  get waiting(): number {
    return this.#waiting.length
  }

  serve(count: number): void {
    for (const resolve of this.#waiting.splice(0, count)) resolve()
  }
}

describe('accounts', () => {
  it('does not have the first job of one account wait for a thousand of another', async () => {
    const counter = new Counter()
    await using engine = await openEngine({ beforeAcquire: counter.beforeAcquire, deps: { maxTakingPerAccount: 8 } })
    engine.dispatcher.start()
    await Promise.all(Array.from({ length: 1000 }, () => engine.start({ accountId: 'a', memoryMb: 100 })))
    await until(() => counter.waiting).toBe(8)
    await engine.start({ accountId: 'b', memoryMb: 200 })
    await until(() => counter.waiting).toBe(9)
    for (let rounds = 0; rounds < 3; rounds++) {
      const before = counter.served.length
      counter.serve(4)
      await until(() => counter.served.length).toBe(before + 4)
      await until(() => counter.waiting).toBeGreaterThanOrEqual(8)
    }
    expect(counter.served.indexOf(200)).toBe(8)
    expect(engine.dispatcher.pending).toBeGreaterThan(900)
  })

  it('serves them in turn, as many as there are', async () => {
    const counter = new Counter()
    await using engine = await openEngine({ beforeAcquire: counter.beforeAcquire, deps: { maxTakingPerAccount: 4 } })
    for (const [accountId, memoryMb] of [
      ['a', 1],
      ['b', 2],
      ['c', 3],
    ] as const) {
      for (let count = 0; count < 5; count++) await engine.start({ accountId, memoryMb })
    }
    engine.dispatcher.start()
    while (counter.served.length < 15) {
      await until(() => counter.waiting).toBeGreaterThan(0)
      const served = counter.served.length
      counter.serve(1)
      await until(() => counter.served.length).toBe(served + 1)
      // Whoever is next asks once this one has a sandbox.
      await until(() => engine.dispatcher.pending).toBe(14 - served)
    }
    expect(counter.served.slice(0, 9)).toEqual([1, 2, 3, 1, 2, 3, 1, 2, 3])
  })

  it('tells the host whose a sandbox is, and how many there are to share with', async () => {
    let accounts = 1
    await using engine = await openEngine({ deps: { accounts: () => accounts } })
    engine.dispatcher.start()
    const start = async (accountId: string) => {
      await engine.ended(await engine.start({ accountId }))
      return engine.host.acquired.at(-1)
    }
    expect(await start('a')).toMatchObject({ share: 'a', shares: 1 })
    accounts++
    expect(await start('b')).toMatchObject({ share: 'b', shares: 2 })
  })

  it('goes by priority within an account, and by arrival in that', async () => {
    const counter = new Counter()
    await using engine = await openEngine({ beforeAcquire: counter.beforeAcquire, deps: { maxTakingPerAccount: 1 } })
    for (const [priority, memoryMb] of [
      [0, 1],
      [5, 2],
      [0, 3],
      [-1, 4],
      [5, 5],
    ] as const)
      await engine.start({ priority, memoryMb })
    engine.dispatcher.start()
    while (counter.served.length < 5) {
      const served = counter.served.length
      await until(() => counter.waiting).toBe(1)
      counter.serve(1)
      await until(() => counter.served.length).toBe(served + 1)
    }
    expect(counter.served).toEqual([2, 5, 1, 3, 4])
  })

  it('has the next process go on in the same order, without what is not due', async () => {
    const counter = new Counter()
    await using first = await openEngine({ beforeAcquire: counter.beforeAcquire })
    const jobs = [
      [0, 1, null],
      [9, 2, '2030-01-01T00:00:00.000Z'],
      [5, 3, null],
    ] as const
    for (const [priority, memoryMb, notBefore] of jobs) await first.start({ priority, memoryMb, notBefore })
    await using second = await openEngine({ directory: first.directory, beforeAcquire: counter.beforeAcquire, deps: { maxTakingPerAccount: 1 } })
    await second.recover()
    second.dispatcher.start()
    while (counter.served.length < 2) {
      const served = counter.served.length
      await until(() => counter.waiting).toBe(1)
      counter.serve(1)
      await until(() => counter.served.length).toBe(served + 1)
    }
    expect(counter.served).toEqual([3, 1])
    await until(() => second.dispatcher.pending).toBe(1)
  })
})

describe('a time to begin at', () => {
  it('is waited for, with one timer', async () => {
    const timers = new FakeTimers()
    let now = Date.parse('2026-01-01T00:00:00.000Z')
    await using engine = await openEngine({ timers, clock: () => now })
    engine.dispatcher.start()
    const late = await engine.start({ notBefore: '2026-01-01T00:00:50.000Z' })
    const early = await engine.start({ notBefore: '2026-01-01T00:00:20.000Z' })
    expect(timers.pending).toEqual([20_000])
    expect(engine.host.acquired).toHaveLength(0)
    now += 20_000
    timers.end(20_000)
    expect(await engine.ended(early)).toMatchObject({ status: 'completed' })
    await until(() => timers.pending.includes(30_000)).toBe(true)
    expect(engine.dispatcher.find(late.requestId)?.waiting).toBe(true)
    await engine.dispatcher.find(late.requestId)?.stop()
    expect(await engine.store.get(late.requestId)).toMatchObject({ status: 'stopped' })
    expect(engine.dispatcher.pending).toBe(0)
  })
})

describe('quotas', () => {
  it('has jobs of an account wait beyond what it may run, and only those', async () => {
    await using engine = await openEngine({ deps: { maxRunningJobsPerAccount: 2 } })
    engine.dispatcher.start()
    const own: { readonly requestId: string }[] = []
    for (let count = 0; count < 4; count++) own.push(await engine.start({ accountId: 'a', script: 'wait' }))
    const other = await engine.start({ accountId: 'b', script: 'wait' })
    await until(() => engine.dispatcher.running).toBe(3)
    expect(engine.dispatcher.pending).toBe(2)
    expect(engine.dispatcher.find(other.requestId)?.waiting).toBe(false)
    await engine.dispatcher.find(own[0]?.requestId ?? '')?.stop()
    await until(async () => (await engine.store.get(own[2]?.requestId ?? ''))?.status).toBe('running')
    expect(engine.dispatcher.find(own[3]?.requestId ?? '')?.waiting).toBe(true)
  })

  it('does not count what sleeps', async () => {
    await using engine = await openEngine({ deps: { maxRunningJobsPerAccount: 1 } })
    engine.dispatcher.start()
    const persistent = await engine.start({ persistent: true })
    await until(async () => (await engine.store.get(persistent.requestId))?.exitCode).toBe(0)
    const next = await engine.start({})
    expect(engine.dispatcher.pending).toBe(1)
    await engine.dispatcher.find(persistent.requestId)?.sleep.fallAsleep('for a test')
    expect(await engine.ended(next)).toMatchObject({ status: 'completed' })
  })

  it('wakes none of an account that has as many awake as it may, however many are asked for at once', async () => {
    await using engine = await openEngine({ deps: { maxRunningJobsPerAccount: 2 } })
    engine.dispatcher.start()
    const sleepers: JobRun[] = []
    for (let count = 0; count < 4; count++) {
      const { requestId } = await engine.start({ persistent: true })
      await until(async () => (await engine.store.get(requestId))?.exitCode).toBe(0)
      const run = engine.dispatcher.find(requestId) as JobRun
      await run.sleep.fallAsleep('for a test')
      sleepers.push(run)
    }
    const woken = await Promise.allSettled(sleepers.map((run) => run.uses.use('exec')))
    expect(woken.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'rejected'])
    expect(woken[2]).toMatchObject({ reason: { code: 'rate_limited', details: { retry_after_seconds: 5 } } })
    await sleepers[0]?.stop()
    await expect(sleepers[2]?.uses.use('exec')).resolves.toBeDefined()
  })

  it('lets what runs go on when it is lowered', async () => {
    await using first = await openEngine()
    first.dispatcher.start()
    for (let count = 0; count < 2; count++) await first.start({ persistent: true, script: 'wait' })
    await until(() => first.dispatcher.running).toBe(2)
    await first.dispatcher.close()
    await using second = await openEngine({ directory: first.directory, host: first.host, deps: { maxRunningJobsPerAccount: 1 } })
    await second.recover()
    second.dispatcher.start()
    expect(second.dispatcher.running).toBe(2)
    await second.start({})
    expect(second.dispatcher.pending).toBe(1)
  })

  it('refuses more waiting jobs of one account than it may have', async () => {
    await using engine = await openEngine({ deps: { maxPendingJobsPerAccount: 2 } })
    await engine.start({ accountId: 'a' })
    const release = engine.dispatcher.reserve('a')
    await expect(engine.start({ accountId: 'a' })).rejects.toMatchObject({ code: 'rate_limited', details: { retry_after_seconds: 5 } })
    await engine.start({ accountId: 'b' })
    release()
    release()
    await engine.start({ accountId: 'a' })
  })

  it('ends what runs longer than the operator allows, unless it is to stay', async () => {
    await using engine = await openEngine({ deps: { maxJobSeconds: 1 } })
    engine.dispatcher.start()
    const words = 'timed out after 1 s, the longest that a job may run on this server'
    const [long, endless, stays] = await Promise.all([
      engine.start({ script: 'wait', timeoutSeconds: 300 }),
      engine.start({ script: 'wait', timeoutSeconds: null }),
      engine.start({ script: 'wait', timeoutSeconds: null, persistent: true }),
    ])
    expect(await engine.ended(long)).toMatchObject({ status: 'error', exitCode: 124, error: words })
    expect(await engine.ended(endless)).toMatchObject({ status: 'error', exitCode: 124, error: words })
    expect(await engine.rows(long)).toEqual([`system ${words}`])
    expect(await engine.store.get(stays.requestId)).toMatchObject({ status: 'running' })
  })
})
