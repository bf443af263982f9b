import { describe, expect, it } from 'vitest'
import type { TapSlot } from '../../network/sandbox-network.ts'
import { type TapSource, VmSlots } from './vm-slots.ts'

function tapSource() {
  const calls: string[] = []
  const slot = (index: number): TapSlot => ({
    kind: 'tap',
    index,
    tapName: `t${index}`,
    address: `10.0.0.${index}`,
    prefixLength: 16,
    gateway: '10.0.0.1',
    gatewayMac: '',
    mac: '',
    mtu: 1500,
  })
  const taps: TapSource = {
    routerNetnsPath: '',
    resolver: '10.0.0.1',
    createTapSlot: async (index) => {
      calls.push(`create ${index}`)
      if (index === 2) throw new Error('no more')
      return slot(index)
    },
    adoptTapSlot: (index) => (index === 1 ? slot(index) : undefined),
    renew: async ({ index }) => {
      calls.push(`renew ${index}`)
      if (index === 1) throw new Error('nft is gone')
    },
  }
  return { taps, calls }
}

describe('VmSlots', () => {
  it('gives each machine a number and a user of its own, and recycles them with their connections cut', async () => {
    const { taps, calls } = tapSource()
    const slots = new VmSlots(taps, { warn: () => undefined })
    const [one, two] = [await slots.take(), await slots.take()]
    expect([one.index, two.index, two.uid - one.uid, two.tap?.tapName]).toEqual([0, 1, 1, 't1'])
    await slots.giveBack(one)
    expect(await slots.take()).toBe(one)
    expect(calls).toEqual(['create 0', 'create 1', 'renew 0'])
  })

  it('sets a slot aside that could not be cleaned, and tells', async () => {
    const warnings: unknown[] = []
    const slots = new VmSlots(tapSource().taps, { warn: (...words: unknown[]) => void warnings.push(words) })
    await slots.take()
    const bad = await slots.take()
    await slots.giveBack(bad)
    expect(warnings).toHaveLength(1)
    // Neither 1 again, nor is 2 lost for good when its tap cannot be made.
    await expect(slots.take()).rejects.toThrow('no more')
    await expect(slots.take()).rejects.toThrow('no more')
  })

  it('keeps the number of an adopted machine from being lent', async () => {
    const slots = new VmSlots(tapSource().taps, { warn: () => undefined })
    expect(slots.adopt(5)).toBeUndefined()
    expect(slots.adopt(1)?.tap?.tapName).toBe('t1')
    expect((await slots.take()).index).toBe(0)
    await expect(slots.take()).rejects.toThrow('no more')
  })
})
