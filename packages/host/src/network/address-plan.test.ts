import { describe, expect, it } from 'vitest'
import { gatewayAddress, gatewayMac, planSlot, slotOfLink } from './address-plan.ts'
import { parseRange } from './ipv4-range.ts'

const subnet = parseRange('10.213.0.0/16')

describe('planSlot', () => {
  it('gives every slot of both kinds an address, MAC and link of its own, none of them the gateway', () => {
    const slots = Array.from({ length: 2_000 }, (_, index) => [planSlot(subnet, 'container', index), planSlot(subnet, 'tap', index)]).flat()
    expect(new Set(slots.map((slot) => slot.address)).size).toBe(4_000)
    expect(new Set(slots.map((slot) => slot.mac)).size).toBe(4_000)
    expect(new Set(slots.map((slot) => slot.link)).size).toBe(4_000)
    expect(slots.map((slot) => slot.address)).not.toContain(gatewayAddress(subnet))
    expect(slots.map((slot) => slot.mac)).not.toContain(gatewayMac(subnet))
    expect(slots[0]).toEqual({ kind: 'container', index: 0, link: 'v0', address: '10.213.0.2', mac: '02:4d:0a:d5:00:02' })
  })

  it('ends before the broadcast address', () => {
    expect(planSlot(subnet, 'container', 32_766).address).toBe('10.213.255.254')
    expect(() => planSlot(subnet, 'tap', 32_766)).toThrow('larger subnet')
    expect(() => planSlot(subnet, 'tap', -1)).toThrow()
  })
})

describe('slotOfLink', () => {
  it('finds the slot again by its link alone', () => {
    for (const slot of [planSlot(subnet, 'container', 12), planSlot(subnet, 'tap', 0)]) expect(slotOfLink(subnet, slot.link)).toEqual(slot)
    for (const link of ['br0', 'up0', 'lo', 'v', 'v1x', 'veth0']) expect(slotOfLink(subnet, link)).toBeUndefined()
  })
})
