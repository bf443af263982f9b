import { describe, expect, it } from 'vitest'
import { usableAddresses } from './usable-addresses.ts'

describe('usableAddresses', () => {
  it.each([
    ['203.0.113.8/29', ['203.0.113.9', '203.0.113.10', '203.0.113.11', '203.0.113.12', '203.0.113.13', '203.0.113.14']],
    ['203.0.113.8/30', ['203.0.113.9', '203.0.113.10']],
    ['203.0.113.8/31', ['203.0.113.8', '203.0.113.9']],
    ['203.0.113.8/32', ['203.0.113.8']],
    ['2001:db8::/126', ['2001:db8::1', '2001:db8::2', '2001:db8::3']],
    ['2001:db8::4/127', ['2001:db8::4', '2001:db8::5']],
    ['2001:db8::7/128', ['2001:db8::7']],
  ])('of %s', (prefix, addresses) => {
    expect([...usableAddresses(prefix)]).toEqual(addresses)
  })

  it('of a large IPv6 prefix: some at random, each inside', () => {
    const drawn = [...usableAddresses('2001:db8:1:2::/64')]
    expect(new Set(drawn).size).toBe(16)
    for (const address of drawn) expect(address).toMatch(/^2001:db8:1:2:/)
  })

  it('of a large IPv4 prefix: the first 65,535', () => {
    const all = [...usableAddresses('10.0.0.0/12')]
    expect([all[0], all.at(-1), all.length]).toEqual(['10.0.0.1', '10.0.255.255', 65_535])
    expect([...usableAddresses('10.1.0.0/16')].at(-1)).toBe('10.1.255.254')
  })
})
