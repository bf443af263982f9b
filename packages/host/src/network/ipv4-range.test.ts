import { describe, expect, it } from 'vitest'
import { deniedRanges } from './denied-ranges.ts'
import { chooseUplink } from './host-routes.ts'
import { formatRange, parseRange, rangesOverlap } from './ipv4-range.ts'

describe('parseRange', () => {
  it('reads addresses and blocks, and clears what is behind the prefix', () => {
    expect(formatRange(parseRange('10.1.2.3'))).toBe('10.1.2.3')
    expect(formatRange(parseRange('10.1.2.3/8'))).toBe('10.0.0.0/8')
    expect(formatRange(parseRange('255.255.255.255/32'))).toBe('255.255.255.255')
    expect(formatRange(parseRange('0.0.0.0/0'))).toBe('0.0.0.0/0')
  })

  it.each(['', '10.0.0', '10.0.0.256', '10.0.0.0/33', '10.0.0.0/', '::1', '10.0.0.1; flush ruleset', '1.2.3.4/8/8'])('refuses %j', (text) => {
    expect(() => parseRange(text)).toThrow(expect.objectContaining({ code: 'bad_request' }))
  })
})

describe('rangesOverlap', () => {
  it.each([
    ['10.0.0.0/8', '10.255.255.255', true],
    ['10.255.255.255', '10.0.0.0/8', true],
    ['10.0.0.0/8', '11.0.0.0/8', false],
    ['192.0.2.0/25', '192.0.2.128/25', false],
  ])('%s and %s: %s', (one, other, expected) => {
    expect(rangesOverlap(parseRange(one), parseRange(other))).toBe(expected)
  })
})

describe('deniedRanges', () => {
  const denies = (address: string, networks: string[] = []) => deniedRanges(networks.map(parseRange)).some((range) => rangesOverlap(range, parseRange(address)))

  it.each(['10.0.0.1', '127.0.0.1', '169.254.169.254', '172.31.0.1', '192.168.1.1', '100.100.100.200', '224.0.0.1', '255.255.255.255', '0.0.0.0'])(
    'has %s',
    (address) => {
      expect(denies(address)).toBe(true)
    },
  )

  it('leaves the internet open', () => {
    for (const address of ['1.1.1.1', '8.8.8.8', '172.32.0.1', '11.0.0.1', '100.128.0.1', '223.255.255.255']) expect(denies(address)).toBe(false)
  })

  it('has a documentation block exactly when the machine is attached to it', () => {
    expect(denies('192.0.2.1')).toBe(false)
    expect(denies('192.0.2.1', ['192.0.2.0/28'])).toBe(true)
    expect(denies('203.0.113.1', ['192.0.2.0/28'])).toBe(false)
  })
})

describe('chooseUplink', () => {
  const all = parseRange('198.18.0.0/15')

  it('is stable for an instance and avoids what the machine routes', () => {
    const first = chooseUplink('3f2a91', [])
    expect(chooseUplink('3f2a91', [])).toEqual(first)
    expect(rangesOverlap(first, all)).toBe(true)
    const second = chooseUplink('3f2a91', [first])
    expect(rangesOverlap(first, second)).toBe(false)
  })

  it('says so when nothing is free', () => {
    expect(() => chooseUplink('3f2a91', [all])).toThrow(expect.objectContaining({ code: 'not_available' }))
  })
})
