import type { GatewayLease } from '@mags/protocol'
import { expect, it } from 'vitest'
import { ConnectionLease } from './connection-lease.ts'

function leases() {
  const made: { closed: number; gone: PromiseWithResolvers<void>; abort: AbortSignal }[] = []
  const open = async (abort: AbortSignal): Promise<GatewayLease> => {
    const one = { closed: 0, gone: Promise.withResolvers<void>(), abort }
    made.push(one)
    return {
      gone: one.gone.promise,
      wokenAt: null,
      connect: () => Promise.reject(new Error('not here')),
      start: () => {
        throw new Error('not here')
      },
      [Symbol.dispose]: () => void one.closed++,
    }
  }
  return { made, lease: new ConnectionLease(open) }
}

it('opens once for all holds and closes with the last', async () => {
  const { made, lease } = leases()
  const [one, two] = [lease.hold(), lease.hold()]
  expect(await one.lease).toBe(await two.lease)
  one[Symbol.dispose]()
  one[Symbol.dispose]()
  await Promise.resolve()
  expect(made.map(({ closed }) => closed)).toEqual([0])
  two[Symbol.dispose]()
  await two.lease
  expect(made.map(({ closed }) => closed)).toEqual([1])
  const three = lease.hold()
  await three.lease
  expect(made).toHaveLength(2)
})

it('gives up an opening that nobody waits for', async () => {
  const { made, lease } = leases()
  const hold = lease.hold()
  hold[Symbol.dispose]()
  await hold.lease
  expect(made[0]?.abort.aborted).toBe(true)
  expect(made[0]?.closed).toBe(1)
})

it('opens anew after the sandbox is gone, and tells who holds the old one', async () => {
  const { made, lease } = leases()
  const old = lease.hold()
  await old.lease
  made[0]?.gone.resolve()
  await new Promise(setImmediate)
  expect(old.lost.aborted).toBe(true)
  const next = lease.hold()
  await next.lease
  expect(made).toHaveLength(2)
  old[Symbol.dispose]()
  await new Promise(setImmediate)
  expect(made.map(({ closed }) => closed)).toEqual([1, 0])
})
