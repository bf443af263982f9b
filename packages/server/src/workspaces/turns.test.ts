import { describe, expect, it } from 'vitest'
import { backoffMs } from './backoff.ts'
import { Turns } from './turns.ts'

describe('Turns', () => {
  it('come one after the other for a key, and do not wait for other keys', async () => {
    const turns = new Turns()
    const order: string[] = []
    const first = await turns.take('a')
    const second = turns.take('a').then((end) => {
      order.push('second')
      end()
    })
    const third = turns.take('a').then((end) => {
      order.push('third')
      end()
    })
    ;(await turns.take('b'))()
    order.push('b')
    first()
    first()
    await Promise.all([second, third])
    expect(order).toEqual(['b', 'second', 'third'])
    ;(await turns.take('a'))()
  })

  it('pass over who gave up, and keep the order', async () => {
    const turns = new Turns()
    const abort = new AbortController()
    const end = await turns.take('a')
    const given = turns.take('a', abort.signal)
    let came = false
    const last = turns.take('a').then((endLast) => {
      came = true
      endLast()
    })
    abort.abort(new Error('enough'))
    await expect(given).rejects.toThrow('enough')
    expect(came).toBe(false)
    end()
    await last
    await expect(turns.take('a', abort.signal)).rejects.toThrow('enough')
    ;(await turns.take('a'))()
  })
})

describe('backoffMs', () => {
  it('doubles up to its bound, between half and the whole of it', () => {
    const options = { firstMs: 1000, longestMs: 60_000 }
    const wholes = [1, 2, 3, 4, 5, 6, 7, 8, 1000].map((failures) => backoffMs(failures, () => 0.999_999_9, options))
    expect(wholes).toEqual([1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000])
    expect(backoffMs(3, () => 0, options)).toBe(2000)
    expect(backoffMs(3, () => 0.5, options)).toBe(3000)
  })
})
