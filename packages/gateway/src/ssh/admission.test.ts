import { describe, expect, it } from 'vitest'
import { Admission } from './admission.ts'
import { defaultSshLimits } from './ssh-limits.ts'

const limits = {
  ...defaultSshLimits,
  unauthenticatedPerAddress: 2,
  unauthenticated: 3,
  freeFailures: 2,
  failureDelayMs: 100,
  failureDelayMaxMs: 350,
  failureMemoryMs: 1_000,
}

describe('Admission', () => {
  it('lets so many wait for each address and in all', () => {
    const admission = new Admission(limits)
    expect(['1.1.1.1', '1.1.1.1', '1.1.1.1', '2.2.2.2', '3.3.3.3'].map((address) => admission.enter(address))).toEqual([true, true, false, true, false])
    admission.leave('1.1.1.1')
    expect(admission.enter('3.3.3.3')).toBe(true)
  })

  it('takes a network of IPv6 for one address, and a mapped IPv4 for that', () => {
    const admission = new Admission(limits)
    expect(['2001:db8::1', '2001:db8:0:0:ffff::2', '2001:db8::3'].map((address) => admission.enter(address))).toEqual([true, true, false])
    const mapped = new Admission(limits)
    expect(['::ffff:1.1.1.1', '1.1.1.1', '::ffff:1.1.1.1'].map((address) => mapped.enter(address))).toEqual([true, true, false])
  })

  it('delays failures more and more, up to a bound, and forgets', () => {
    let now = 0
    const admission = new Admission(limits, () => now)
    expect(Array.from({ length: 6 }, () => admission.fail('1.1.1.1'))).toEqual([0, 0, 100, 200, 350, 350])
    expect(admission.fail('2.2.2.2')).toBe(0)
    now = 1_001
    expect(admission.fail('1.1.1.1')).toBe(0)
  })
})
