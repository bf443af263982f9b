import { describe, expect, it } from 'vitest'
import { checkPrefixesFree, isInPrefixes, parsePrefixes, prefixesOverlap, readAddressPrefixes } from './address-prefixes.ts'

describe('readAddressPrefixes', () => {
  it('reads prefixes of both families, and none', () => {
    expect(readAddressPrefixes(undefined)).toEqual([])
    expect(readAddressPrefixes(' ')).toEqual([])
    expect(readAddressPrefixes('203.0.113.8/29, 2001:DB8:1:0:0:0:0:0/64,198.51.100.7,2001:db8:2::5')).toEqual([
      '203.0.113.8/29',
      '2001:db8:1::/64',
      '198.51.100.7/32',
      '2001:db8:2::5/128',
    ])
  })

  it.each([
    ['203.0.113.8/33', 'is not a prefix'],
    ['203.0.113/24', 'is not a prefix'],
    ['0313.0.113.8', 'is not a prefix'],
    ['example.org', 'is not a prefix'],
    ['2001:db8::/129', 'is not a prefix'],
    ['fe80::1%eth0/64', 'is not a prefix'],
    ['203.0.113.9/29', 'the block it lies in is 203.0.113.8/29'],
    ['2001:db8::1/64', 'the block it lies in is 2001:db8::/64'],
    ['0.0.0.0/0', '0.0.0.0/8'],
    ['127.0.0.0/24', '127.0.0.0/8'],
    ['224.0.1.0/24', '224.0.0.0/4'],
    ['169.254.0.0/16', '169.254.0.0/16'],
    ['198.18.7.0/24', '198.18.0.0/15'],
    ['255.255.255.255', '240.0.0.0/4'],
    ['::/0', 'neither global unicast nor unique local'],
    ['::1', 'neither global unicast nor unique local'],
    ['ff02::/16', 'neither global unicast nor unique local'],
    ['fe80::/64', 'neither global unicast nor unique local'],
    ['::ffff:0:0/96', 'neither global unicast nor unique local'],
    ['2002:a00::/24', '2002::/16'],
    ['203.0.113.0/24,203.0.113.8/29', 'overlap'],
  ])('refuses %s and names the setting', (value, words) => {
    expect(() => readAddressPrefixes(value)).toThrow(`MAGS_IP_PREFIXES: `)
    expect(() => readAddressPrefixes(value)).toThrow(words)
  })
})

describe('checkPrefixesFree', () => {
  it('names what is in the way', () => {
    const prefixes = parsePrefixes(['203.0.113.8/29', '2001:db8:1::/64'])
    const taken = (address: string) => checkPrefixesFree(prefixes, [{ address, what: 'an address of this machine' }])
    expect(() => taken('203.0.113.10')).toThrow('MAGS_IP_PREFIXES: 203.0.113.8/29 holds 203.0.113.10, an address of this machine')
    expect(() => taken('2001:db8:1::7')).toThrow('2001:db8:1::/64 holds 2001:db8:1::7')
    taken('203.0.113.16')
    taken('2001:db8:2::7')
  })
})

it('knows what lies in what', () => {
  const prefixes = parsePrefixes(['203.0.113.8/29', '2001:db8:1::/64'])
  expect(['203.0.113.15', '203.0.113.16', '2001:db8:1::f', '2001:db8:1:1::'].map((address) => isInPrefixes(prefixes, address))).toEqual([
    true,
    false,
    true,
    false,
  ])
  expect(prefixesOverlap('2001:db8::/32', '2001:db8:9::/48')).toBe(true)
  expect(prefixesOverlap('2001:db8:9::/48', '2001:db8::/32')).toBe(true)
  expect(prefixesOverlap('10.0.0.0/8', '::/0')).toBe(false)
})
