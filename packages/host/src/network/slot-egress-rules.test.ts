import { describe, expect, it } from 'vitest'
import { readEgressRules } from '../egress/egress-rules.ts'
import { planSlot } from './address-plan.ts'
import { parseRange } from './ipv4-range.ts'
import { changeEgressScript, type LiveSlot, type RouterRules, renderRouterRules, renewSlotScript } from './router-rules.ts'
import { addEgressScript, grantScript } from './slot-egress-rules.ts'

const subnet = parseRange('10.213.0.0/16')
const read = (policy: Parameters<typeof readEgressRules>[0]) => readEgressRules(policy, { denied: [], allowed: [] })
const slot: LiveSlot = { ...planSlot(subnet, 'container', 0), generation: 3, stale: [] }
const rules: RouterRules = {
  subnet,
  resolverUid: 1,
  forwarderUid: 2,
  denied: [parseRange('10.0.0.0/8')],
  allowed: [],
  forbidden: [],
  upstreams: [],
  prefixes6: [],
}

describe('the rules of a policy', () => {
  it('have what is denied first, and refuse the rest of an allow list', () => {
    expect(addEgressScript('10.213.0.2', 4, read({ allow: ['203.0.113.0/24', 'example.org'], deny: ['203.0.113.7'] }))).toBe(`add chain inet mags egress_4
add rule inet mags egress_4 ct original ip daddr { 203.0.113.7 } goto refuse
add rule inet mags egress_4 ct original ip daddr { 203.0.113.0/24 } goto open
add set inet mags egress_4_names { type ipv4_addr; size 65535; flags timeout; }
add rule inet mags egress_4 ct original ip daddr @egress_4_names goto open
add rule inet mags egress_4 goto refuse
add element inet mags policies { 10.213.0.2 : goto egress_4 }
add element inet mags name_policies { 10.213.0.2 : goto names_filtered }
add element inet mags name_routes { 10.213.0.2 : goto route_names }
`)
  })

  it('of none refuse all, names too', () => {
    const script = addEgressScript('10.213.0.2', 4, read('none'))
    expect(script.split('\n').slice(0, 2)).toEqual(['add chain inet mags egress_4', 'add rule inet mags egress_4 goto refuse'])
    expect(script).toContain('name_policies { 10.213.0.2 : goto names_refused }')
  })

  it('let an address through until the last of its names ends', () => {
    const grants = [
      { name: 'a.test', address: '203.0.113.7', secondsLeft: 5.2 },
      { name: 'b.test', address: '203.0.113.7', secondsLeft: 9 },
    ]
    expect(grantScript('egress_4', grants).split('\n').at(-1)).toBe('add element inet mags egress_4_names { 203.0.113.7 timeout 9s }')
  })

  it('come after what this machine refuses all', () => {
    const text = renderRouterRules(rules, [slot])
    const outbound = text.slice(text.indexOf('chain outbound'), text.indexOf('chain forward'))
    const places = [
      '@upstreams goto refuse',
      'th dport { 53, 853 } goto refuse',
      '@forbidden goto refuse',
      '@allowed goto judge',
      '@denied goto refuse',
      '\n    goto judge\n',
    ]
    const found = places.map((words) => outbound.lastIndexOf(words))
    expect(found).toEqual([...found].sort((a, b) => a - b))
    expect(found).not.toContain(-1)
  })

  it('take the place of those before, and their connections are stale', () => {
    const before: LiveSlot = { ...slot, stale: [1], egress: read('none') }
    const script = changeEgressScript(before, { ...before, generation: 9, stale: [3], egress: read({}) }, [], false)
    expect(script).toContain('delete chain inet mags egress_3\n')
    expect(script).toContain('delete element inet mags stale { 10.213.0.2 . 1 }\nadd element inet mags generations { 10.213.0.2 : 9 }')
    expect(script).toContain('add element inet mags stale { 10.213.0.2 . 3 }\n')
  })

  it('go with the sandbox, and so does its count', () => {
    const script = renewSlotScript([{ ...slot, stale: [1, 2], egress: read('none') }], [{ ...slot, generation: 9 }], false)
    for (const words of [
      'delete element inet mags policies',
      'delete chain inet mags egress_3',
      'delete element inet mags stale { 10.213.0.2 . 1, 10.213.0.2 . 2 }',
    ])
      expect(script).toContain(words)
    expect(script.indexOf('delete element inet mags sent { 10.213.0.2 }')).toBeLessThan(script.indexOf('add element inet mags sent { 10.213.0.2 }'))
    expect(script).not.toContain('egress_9')
  })
})
