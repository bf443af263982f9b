import { describe, expect, it } from 'vitest'
import { Misses } from './misses.ts'

describe('names that mean nothing', () => {
  it('are remembered for a moment, and never more than a bound of them', () => {
    let now = 0
    const misses = new Misses(() => now)
    misses.add('a')
    now = 1999
    expect(misses.has('a')).toBe(true)
    now = 2000
    expect(misses.has('a')).toBe(false)
    for (let index = 0; index < 2001; index++) misses.add(String(index))
    expect([misses.has('0'), misses.has('1'), misses.has('2000')]).toEqual([false, true, true])
  })
})
