import { describe, expect, it } from 'vitest'
import { formatRange, parseRange } from '../network/ipv4-range.ts'
import { isAllowed } from './domain-rule.ts'
import { type EgressWalls, readEgressRules } from './egress-rules.ts'
import { readEgressDefault, readEgressDeny } from './operator-egress.ts'

const walls: EgressWalls = {
  denied: ['10.0.0.0/8', '169.254.0.0/16'].map(parseRange),
  allowed: [parseRange('10.20.0.0/16')],
  forbidden: [parseRange('10.20.9.0/24')],
}

describe('readEgressRules', () => {
  it('reads none, and what names it leaves', () => {
    expect(readEgressRules('none', walls)).toMatchObject({ allowed: [], names: 'refused' })
    expect(readEgressRules({}, walls)).toMatchObject({ allowed: undefined, names: 'open' })
    expect(readEgressRules({ deny: ['203.0.113.0/24'] }, walls).names).toBe('open')
    expect(readEgressRules({ deny: ['example.org'] }, walls).names).toBe('filtered')
    expect(readEgressRules({ allow: ['203.0.113.7'] }, walls).names).toBe('refused')
    expect(readEgressRules({ allow: ['203.0.113.7', 'Example.ORG.'] }, walls).names).toBe('filtered')
  })

  it('leaves out blocks that lie in others', () => {
    const { allowed } = readEgressRules({ allow: ['203.0.113.7', '203.0.113.0/24', '203.0.113.0/24', '198.51.100.1'] }, walls)
    expect(allowed?.map(formatRange)).toEqual(['203.0.113.0/24', '198.51.100.1'])
  })

  it.each([
    ['10.1.2.3', 'egress.allow.0: 10.1.2.3 lies in 10.0.0.0/8, which this server refuses; that cannot be lifted by a job'],
    ['169.254.169.254', 'egress.allow.0: 169.254.169.254 lies in 169.254.0.0/16'],
    ['10.20.9.1', 'egress.allow.0: 10.20.9.1 lies in 10.20.9.0/24'],
    ['203.0.113.9/24', 'egress.allow.0: has bits set behind its prefix; the block is 203.0.113.0/24'],
    ['2001:db8::1', 'egress.allow.0: must be IPv4 or a domain without a port; sandboxes have no IPv6'],
    ['https://example.org', 'egress.allow.0: must be a host name, not a URL'],
    ['example.org:443', 'egress.allow.0: must be IPv4 or a domain without a port'],
    ['example.org/path', 'egress.allow.0: must be a domain without a path'],
    ['203.0.113.256', 'egress.allow.0: is not an IPv4 address or block'],
    ['203.0.113.07', 'egress.allow.0: is not an IPv4 address or block'],
    ['203.0.113.0/33', 'egress.allow.0: is not an IPv4 address or block'],
    ['', 'egress.allow.0: must not be empty'],
    ['localhost', 'egress.allow.0: must be a whole domain'],
    ['a.*.org', 'egress.allow.0: a * may only stand first'],
    ['*', 'egress.allow.0: a * may only stand first'],
    ['exa mple.org', 'egress.allow.0: is not a domain'],
    ['-a.example.org', 'egress.allow.0: is not a domain'],
    [`${'a'.repeat(64)}.org`, 'egress.allow.0: is not a domain'],
  ])('refuses %s with the entry and the rule', (entry, words) => {
    expect(() => readEgressRules({ allow: [entry] }, walls)).toThrow(words)
  })

  it('takes what the operator allows, and blocks wider than a wall', () => {
    expect(readEgressRules({ allow: ['10.20.1.0/24', '0.0.0.0/0'] }, walls).allowed?.map(formatRange)).toEqual(['0.0.0.0/0'])
  })

  it('names the list and the place', () => {
    expect(() => readEgressRules({ allow: ['a.org'], deny: ['b.org', 'c'] }, walls)).toThrow('egress.deny.1: must be a whole domain')
    expect(() => readEgressRules({ deny: Array.from({ length: 201 }, () => 'a.org') }, walls)).toThrow('egress.deny: at most 200 entries')
  })

  it('lets deny win, and a star means below only', () => {
    const { domains } = readEgressRules({ allow: ['example.org', '*.example.org'], deny: ['*.bad.example.org'] }, walls)
    expect(['example.org', 'www.example.org', 'bad.example.org'].every((name) => isAllowed(domains, name))).toBe(true)
    expect(['x.bad.example.org', 'notexample.org', 'org'].some((name) => isAllowed(domains, name))).toBe(false)
    expect(isAllowed(readEgressRules({ allow: ['*.example.org'] }, walls).domains, 'example.org')).toBe(false)
  })
})

describe('the settings of an operator', () => {
  it('reads a default policy', () => {
    expect(readEgressDefault(undefined)).toBeUndefined()
    expect(readEgressDefault(' none ')).toBe('none')
    expect(readEgressDefault('{"deny":["203.0.113.0/24"]}')).toEqual({ deny: ['203.0.113.0/24'] })
    expect(() => readEgressDefault('all')).toThrow('MAGS_EGRESS_DEFAULT: must be none or JSON')
    expect(() => readEgressDefault('[]')).toThrow('MAGS_EGRESS_DEFAULT: must be "none" or an object with allow and deny')
    expect(() => readEgressDefault('{"allow":["::1"]}')).toThrow('MAGS_EGRESS_DEFAULT.allow.0: must be IPv4')
    expect(() => readEgressDefault('{"alow":[]}')).toThrow('MAGS_EGRESS_DEFAULT: Unrecognized key: "alow"')
  })

  it('reads blocks that nobody reaches', () => {
    expect(readEgressDeny(undefined)).toEqual([])
    expect(readEgressDeny('203.0.113.0/24, 198.51.100.1').map(formatRange)).toEqual(['203.0.113.0/24', '198.51.100.1'])
    expect(() => readEgressDeny('203.0.113.0/24,example.org')).toThrow('MAGS_EGRESS_DENY.1: must be an address or block')
  })
})
