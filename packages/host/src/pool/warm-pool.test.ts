import { afterEach, describe, expect, it } from 'vitest'
import type { SandboxShape } from '../drivers/driver.ts'
import { FakeDriver } from '../drivers/fake/fake-driver.ts'
import type { PoolClock } from './pool-clock.ts'
import { WarmPool, type WarmPoolOptions } from './warm-pool.ts'

const small: SandboxShape = { image: 'debian-12', vcpus: 1, memoryMb: 512, diskGb: 2 }
const large: SandboxShape = { ...small, memoryMb: 2048 }

/** Time that stands until it is turned. */
class HandClock implements PoolClock {
  #now = 0
  readonly #timers = new Map<object, { at: number; callback: () => void }>()

  now() {
    return this.#now
  }

  after(ms: number, callback: () => void) {
    const key = {}
    this.#timers.set(key, { at: this.#now + ms, callback })
    return () => void this.#timers.delete(key)
  }

  async turn(ms: number) {
    const end = this.#now + ms
    await settled()
    for (;;) {
      const next = [...this.#timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0]
      if (next === undefined) break
      this.#timers.delete(next[0])
      this.#now = Math.max(this.#now, next[1].at)
      next[1].callback()
      await settled()
    }
    this.#now = end
    await settled()
  }
}

/** Lets everything that waits only for turns of the event loop happen. */
async function settled() {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
}

const room = { forJob: () => true, forStock: () => true, words: () => undefined }
const pools: WarmPool[] = []

function makePool(driver: FakeDriver, options: Partial<WarmPoolOptions> & { minSize?: number } = {}) {
  const clock = new HandClock()
  const { minSize = 3, ...rest } = options
  const pool = new WarmPool(driver, {
    defaultShape: small,
    maxSize: 0,
    headroom: room,
    idleTtlMs: 300_000,
    createConcurrency: 2,
    acquireTimeoutMs: 30_000,
    clock,
    ...rest,
  })
  pool.stock(minSize)
  pools.push(pool)
  return { pool, clock }
}

afterEach(async () => {
  await Promise.all(pools.splice(0).map((pool) => pool.close()))
})

describe('a warm pool whose default changes', () => {
  const newer: SandboxShape = { ...small, imageDigest: 'sha256:2' }

  it('keeps the new one ready, and has nothing left of the old one', async () => {
    const driver = new FakeDriver()
    const { pool } = makePool(driver)
    pool.open()
    await settled()
    pool.changeDefault(newer)
    await pool.retire((shape) => shape.imageDigest === undefined)
    await settled()
    expect(driver.machines.map(({ shape }) => shape.imageDigest)).toEqual(['sha256:2', 'sha256:2', 'sha256:2'])
    const { sandbox, warm } = await pool.take(newer)
    expect([sandbox.shape, warm]).toEqual([newer, true])
  })

  it('keeps versions of an image apart', async () => {
    const driver = new FakeDriver()
    const { pool } = makePool(driver)
    pool.open()
    await settled()
    const { sandbox, warm } = await pool.take(newer)
    expect([sandbox.shape, warm]).toEqual([newer, false])
  })

  it('destroys what was being made of the old one once it is there, but not what somebody waits for', async () => {
    const driver = new FakeDriver()
    const { pool } = makePool(driver, { minSize: 0 })
    pool.stock(1)
    pool.open()
    const release = driver.holdCreates()
    const waiting = pool.take(large)
    await settled()
    pool.changeDefault(newer)
    await pool.retire((shape) => shape.imageDigest === undefined)
    release()
    await waiting
    await settled()
    expect(pool.status()).toMatchObject({ idle: 1, busy: 1, creating: 0, waiting: 0 })
    expect(driver.machines.map(({ shape }) => shape)).toEqual(expect.arrayContaining([large, newer]))
    expect(driver.machines).toHaveLength(2)
  })
})

describe('WarmPool', () => {
  it('makes nothing before it is opened, then fills to the minimum', async () => {
    const driver = new FakeDriver()
    const { pool } = makePool(driver)
    await settled()
    expect(driver.asked).toHaveLength(0)
    pool.open()
    await settled()
    expect(pool.status()).toMatchObject({ idle: 3, busy: 0, creating: 0 })
  })

  it('hands out a warm sandbox at once and refills only when it is quiet', async () => {
    const driver = new FakeDriver()
    const { pool, clock } = makePool(driver)
    pool.open()
    await settled()
    const { warm } = await pool.take(small)
    expect(warm).toBe(true)
    await settled()
    expect(driver.asked).toHaveLength(3)
    await clock.turn(30)
    expect(pool.status()).toMatchObject({ idle: 3, busy: 1, hits: 1, takes: 1 })
  })

  it('makes room for another while one sleeps, and counts it apart', async () => {
    const driver = new FakeDriver()
    const { pool, clock } = makePool(driver, { minSize: 0, maxSize: 1 })
    pool.open()
    const { sandbox } = await pool.take(small)
    const second = pool.take(small)
    await settled()
    expect(pool.status()).toMatchObject({ busy: 1, sleeping: 0, waiting: 1 })
    pool.rest(sandbox, true)
    pool.rest(sandbox, true)
    await clock.turn(30)
    await second
    expect(pool.status()).toMatchObject({ busy: 1, sleeping: 1, waiting: 0 })
    // It wakes although the pool is full: it has its memory already.
    pool.rest(sandbox, false)
    expect(pool.status()).toMatchObject({ busy: 2, sleeping: 0 })
    pool.rest(sandbox, true)
    await sandbox.destroy()
    await settled()
    expect(pool.status()).toMatchObject({ busy: 1, sleeping: 0 })
    pool.rest(sandbox, false)
    expect(pool.status()).toMatchObject({ busy: 1, sleeping: 0 })
  })

  it('serves waiters in their order when it is empty', async () => {
    const driver = new FakeDriver()
    const release = driver.holdCreates()
    const { pool } = makePool(driver, { minSize: 0 })
    pool.open()
    const order: number[] = []
    const takes = [0, 1, 2, 3].map((n) => pool.take(small).then(() => order.push(n)))
    await settled()
    expect(pool.status()).toMatchObject({ waiting: 4, creating: 2 })
    release()
    await Promise.all(takes)
    expect(order).toEqual([0, 1, 2, 3])
    expect(pool.status()).toMatchObject({ waiting: 0, busy: 4 })
  })

  it('serves those of different shares in turn, whoever came first', async () => {
    const driver = new FakeDriver()
    const { pool, clock } = makePool(driver, { minSize: 0, maxSize: 1 })
    pool.open()
    const { sandbox } = await pool.take(small, undefined, { share: 'crowd' })
    const order: string[] = []
    const next = (share: string, name: string) =>
      pool.take(small, undefined, { share }).then(async (taken) => {
        order.push(name)
        await taken.sandbox.destroy()
      })
    const takes = [...[1, 2, 3].map((n) => next('crowd', `crowd ${n}`)), next('late', 'late 1'), next('late', 'late 2'), next('later', 'later')]
    await sandbox.destroy()
    for (const _ of takes) await clock.turn(30)
    await Promise.all(takes)
    expect(order).toEqual(['late 1', 'later', 'crowd 1', 'late 2', 'crowd 2', 'crowd 3'])
  })

  it('gives its last place only to who has none, and the others theirs as soon as there is one', async () => {
    const driver = new FakeDriver()
    const { pool, clock } = makePool(driver, { minSize: 1, maxSize: 4 })
    pool.open()
    const crowd = { share: 'crowd', shares: 2 }
    const first = await Promise.all([1, 2, 3].map(() => pool.take(small, undefined, crowd)))
    const order: string[] = []
    const more = pool.take(small, undefined, crowd).then(() => order.push('crowd'))
    const ofItsOwn = pool.takeNew(small, { lowerDisks: [], upperDisk: '/none' }, undefined, crowd).then(() => order.push('root of its own'))
    await clock.turn(1000)
    expect(pool.status()).toMatchObject({ idle: 1, busy: 3, waiting: 1 })
    for (let round = 0; round < 3; round++) {
      const other = await pool.take(small, undefined, { share: 'other', shares: 2 })
      expect([other.warm, order]).toEqual([true, []])
      await other.sandbox.destroy()
      // Who asked while the place was taken does not get it either.
      await clock.turn(1000)
      expect([pool.status().busy, order]).toEqual([3, []])
    }
    await first[0]?.sandbox.destroy()
    await clock.turn(1000)
    expect(order).toHaveLength(1)
    await first[1]?.sandbox.destroy()
    await clock.turn(1000)
    await Promise.all([more, ofItsOwn])
    expect(pool.status()).toMatchObject({ busy: 3, waiting: 0 })
  })

  it('keeps no place for others while everybody has one, and again when one of them sleeps', async () => {
    const { pool, clock } = makePool(new FakeDriver(), { minSize: 0, maxSize: 4 })
    pool.open()
    const take = (share: string) => pool.take(small, undefined, { share, shares: 2 })
    const other = await take('other')
    await Promise.all([take('crowd'), take('crowd'), take('crowd')])
    expect(pool.status()).toMatchObject({ busy: 4, waiting: 0 })
    pool.rest(other.sandbox, true)
    let served = false
    void take('crowd').then(() => {
      served = true
    })
    await clock.turn(1000)
    expect([pool.status().busy, served]).toEqual([3, false])
    pool.rest(other.sandbox, false)
    await clock.turn(1000)
    expect([pool.status().busy, served]).toEqual([4, false])
  })

  it.each([0, 1, 3])('keeps no place for others where there are %i', async (maxSize) => {
    const { pool } = makePool(new FakeDriver(), { minSize: 0, maxSize })
    pool.open()
    await Promise.all(Array.from({ length: maxSize || 5 }, () => pool.take(small, undefined, { share: 'crowd', shares: 2 })))
    expect(pool.status()).toMatchObject({ busy: maxSize || 5, waiting: 0 })
  })

  it('keeps shapes apart unless the driver folds them', async () => {
    const apart = new FakeDriver()
    const { pool } = makePool(apart)
    pool.open()
    await settled()
    expect((await pool.take(large)).warm).toBe(false)
    const folded = new FakeDriver({ fold: () => small })
    const other = makePool(folded).pool
    other.open()
    await settled()
    expect((await other.take(large)).warm).toBe(true)
  })

  it('rejects an aborted wait with its reason and forgets it', async () => {
    const driver = new FakeDriver()
    const release = driver.holdCreates()
    const { pool } = makePool(driver, { minSize: 0 })
    pool.open()
    const abort = new AbortController()
    const take = pool.take(small, abort.signal)
    abort.abort(new Error('no longer wanted'))
    await expect(take).rejects.toThrow('no longer wanted')
    release()
    await settled()
    expect(pool.status()).toMatchObject({ waiting: 0, idle: 1 })
  })

  it('fails a take with the last words of a driver that only fails, after the bound', async () => {
    const driver = new FakeDriver()
    driver.failCreates('qemu: no such device')
    const { pool, clock } = makePool(driver)
    pool.open()
    const take = expect(pool.take(small)).rejects.toMatchObject({ code: 'sandbox_failed', message: expect.stringContaining('qemu: no such device') })
    await clock.turn(30_001)
    await take
    expect(pool.status().lastFailure).toBe('qemu: no such device')
    driver.failCreates(undefined)
    await clock.turn(10_001)
    // Each miss raises what is kept by one.
    expect(pool.status()).toMatchObject({ idle: 4 })
    expect(pool.status().lastFailure).toBeUndefined()
  })

  it('goes on waiting while there is merely no room', async () => {
    const driver = new FakeDriver()
    const { pool, clock } = makePool(driver, { minSize: 1, maxSize: 1 })
    pool.open()
    await settled()
    const { sandbox } = await pool.take(small)
    let second = false
    const take = pool.take(small).then(() => {
      second = true
    })
    await clock.turn(120_000)
    expect(second).toBe(false)
    await sandbox.destroy()
    await clock.turn(30)
    await take
    expect(second).toBe(true)
  })

  it('stops stocking without headroom but still makes the minimum and what jobs wait for', async () => {
    const driver = new FakeDriver()
    const { pool } = makePool(driver, { headroom: { forJob: () => true, forStock: () => false, words: () => 'full' } })
    pool.open()
    await settled()
    expect(pool.status().idle).toBe(3)
    const takes = await Promise.all(Array.from({ length: 6 }, () => pool.take(small)))
    expect(takes).toHaveLength(6)
    await settled()
    expect(pool.status().idle).toBeLessThanOrEqual(3)
  })

  it('goes on stocking once there is headroom again, without being asked', async () => {
    const driver = new FakeDriver()
    let full = true
    const { pool, clock } = makePool(driver, { headroom: { forJob: () => true, forStock: () => !full, words: () => 'full' } })
    pool.open()
    await settled()
    await Promise.all(Array.from({ length: 5 }, () => pool.take(small)))
    await clock.turn(2000)
    expect(pool.status().idle).toBe(3)
    full = false
    await clock.turn(2000)
    expect(pool.status().idle).toBeGreaterThan(3)
  })

  it('lets idle ones above the minimum go after their time, and keeps the minimum', async () => {
    const driver = new FakeDriver()
    const { pool, clock } = makePool(driver)
    pool.open()
    await settled()
    const takes = await Promise.all(Array.from({ length: 8 }, () => pool.take(small)))
    await clock.turn(100)
    await Promise.all(takes.map(({ sandbox }) => sandbox.destroy()))
    await clock.turn(100)
    expect(pool.status().idle).toBeGreaterThan(3)
    await clock.turn(310_000)
    expect(pool.status()).toMatchObject({ idle: 3, busy: 0 })
    expect(driver.machines).toHaveLength(3)
  })

  it('replaces an idle sandbox that dies', async () => {
    const driver = new FakeDriver()
    const { pool, clock } = makePool(driver)
    pool.open()
    await settled()
    driver.machines[0]?.die('killed from outside')
    await clock.turn(30)
    expect(pool.status().idle).toBe(3)
  })

  it('leaves nothing behind when closed, not even what is being made', async () => {
    const driver = new FakeDriver()
    const release = driver.holdCreates()
    const { pool } = makePool(driver)
    pool.open()
    await settled()
    const closing = pool.close()
    release()
    await closing
    expect(driver.machines).toHaveLength(0)
  })
})
