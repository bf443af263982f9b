import type { RefusedConnection } from '@mags/protocol'
import { describe, expect, it, vi } from 'vitest'
import type { RefusedRow } from '../network/network-egress.ts'
import { SlotUse } from '../network/slot-use.ts'
import { RefusalWatch } from './refusal-watch.ts'

const row = (generation: number, port: number): RefusedRow => ({ generation, address: '203.0.113.7', protocol: 'tcp', port })

function setUp() {
  const state = { rows: [] as RefusedRow[] }
  const watch = new RefusalWatch(async () => state.rows, { warn: vi.fn() })
  const heard: RefusedConnection[] = []
  const use = new SlotUse('v0', '10.213.0.2', [5])
  const stop = watch.add(use, (refused) => heard.push(refused))
  return { watch, heard, use, stop, state }
}

describe('RefusalWatch', () => {
  it('tells each target once a minute', async () => {
    const { watch, heard, stop } = setUp()
    watch.deliver([row(5, 1)], 0)
    watch.deliver([row(5, 1)], 59_999)
    expect(heard).toEqual([{ protocol: 'tcp', address: '203.0.113.7', port: 1 }])
    watch.deliver([row(5, 1)], 60_000)
    expect(heard).toHaveLength(2)
    await stop()
  })

  it('tells 64 a minute', async () => {
    const { watch, heard, stop } = setUp()
    watch.deliver(
      Array.from({ length: 100 }, (_, port) => row(5, port)),
      0,
    )
    expect(heard).toHaveLength(64)
    await stop()
  })

  it('tells what belongs to any number of the use, and nothing of another', async () => {
    const { watch, heard, use, stop } = setUp()
    use.generations.add(9)
    watch.deliver([row(5, 1), row(9, 2), row(6, 3)], 0)
    expect(heard.map(({ port }) => port)).toEqual([1, 2])
    await stop()
    watch.deliver([row(5, 4)], 0)
    expect(heard).toHaveLength(2)
  })
  it('looks once more before it stops', async () => {
    const { heard, stop, state } = setUp()
    state.rows = [row(5, 1)]
    await stop()
    expect(heard).toHaveLength(1)
  })
})
