import { describe, expect, it } from 'vitest'
import { KeyedLock } from './keyed-lock.ts'

describe('a keyed lock', () => {
  it('runs one after the other for one key, and others meanwhile', async () => {
    const lock = new KeyedLock()
    const order: string[] = []
    const gate = Promise.withResolvers<void>()
    const first = lock.run('a', async () => {
      await gate.promise
      order.push('first')
    })
    const second = lock.run('a', async () => void order.push('second'))
    await lock.run('b', async () => void order.push('other'))
    gate.resolve()
    await Promise.all([first, second])
    expect(order).toEqual(['other', 'first', 'second'])
  })

  it('goes on after a failure', async () => {
    const lock = new KeyedLock()
    await expect(lock.run('a', () => Promise.reject(new Error('no')))).rejects.toThrow('no')
    expect(await lock.run('a', async () => 1)).toBe(1)
  })
})
