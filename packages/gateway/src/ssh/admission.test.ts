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

const enters = (admission: Admission, address: string) => admission.enter(address, () => undefined) !== undefined

describe('Admission', () => {
  it('lets so many wait for each address and in all', () => {
    const admission = new Admission(limits)
    const enter = (address: string) => admission.enter(address, () => expect.unreachable())
    const [leave, ...others] = ['1.1.1.1', '2.2.2.2', '3.3.3.3'].map(enter)
    expect([leave, ...others, enter('4.4.4.4')].map((entered) => entered !== undefined)).toEqual([true, true, true, false])
    leave?.()
    // Once is enough.
    leave?.()
    expect(['4.4.4.4', '5.5.5.5'].map((address) => enter(address) !== undefined)).toEqual([true, false])
  })

  it('ends the oldest of the network that has most, for one that has fewer', () => {
    const admission = new Admission(limits)
    const ended: string[] = []
    const enter = (address: string, name: string) => admission.enter(address, () => ended.push(name)) !== undefined
    expect([enter('1.1.1.1', 'a'), enter('1.1.1.1', 'b'), enter('2.2.2.2', 'c'), enter('1.1.1.1', 'd')]).toEqual([true, true, true, false])
    expect([enter('3.3.3.3', 'e'), ended, enter('4.4.4.4', 'f')]).toEqual([true, ['a'], false])
  })

  it('takes a network of IPv6 for one address, and a mapped IPv4 for that', () => {
    const admission = new Admission(limits)
    expect(['2001:db8::1', '2001:db8:0:0:ffff::2', '2001:db8::3'].map((address) => enters(admission, address))).toEqual([true, true, false])
    const mapped = new Admission(limits)
    expect(['::ffff:1.1.1.1', '1.1.1.1', '::ffff:1.1.1.1'].map((address) => enters(mapped, address))).toEqual([true, true, false])
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
