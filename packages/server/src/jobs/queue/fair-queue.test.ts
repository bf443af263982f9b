import { describe, expect, it } from 'vitest'
import { FairQueue } from './fair-queue.ts'

const item = (requestId: string, priority = 0) => ({ requestId, accountId: requestId.slice(0, 1), priority })
const everybody = () => true

function drain(queue: FairQueue<ReturnType<typeof item>>, mayHaveTurn: (accountId: string) => boolean = everybody): string[] {
  const taken: string[] = []
  for (let next = queue.take(mayHaveTurn); next !== undefined; next = queue.take(mayHaveTurn)) taken.push(next.requestId)
  return taken
}

describe('FairQueue', () => {
  it('takes from each account in turn, and in it by priority, then by arrival', () => {
    const queue = new FairQueue<ReturnType<typeof item>>()
    for (const one of [item('a1'), item('a2', 3), item('a3', 3), item('a4', -1), item('b1'), item('c1'), item('c2')]) queue.add(one)
    expect([...queue.accounts]).toEqual(['a', 'b', 'c'])
    expect(drain(queue)).toEqual(['a2', 'b1', 'c1', 'a3', 'c2', 'a1', 'a4'])
    expect(queue.size).toBe(0)
    expect([...queue.accounts]).toEqual([])
  })

  it('has an account that comes again stand last', () => {
    const queue = new FairQueue<ReturnType<typeof item>>()
    for (const one of [item('a1'), item('b1'), item('b2')]) queue.add(one)
    expect(queue.take(everybody)?.requestId).toBe('a1')
    queue.add(item('a2'))
    expect(drain(queue)).toEqual(['b1', 'a2', 'b2'])
  })

  it('passes over who may not have a turn, without taking it away', () => {
    const queue = new FairQueue<ReturnType<typeof item>>()
    for (const one of [item('a1'), item('b1'), item('b2')]) queue.add(one)
    expect(drain(queue, (accountId) => accountId === 'b')).toEqual(['b1', 'b2'])
    expect(drain(queue)).toEqual(['a1'])
  })

  it('forgets what is removed', () => {
    const queue = new FairQueue<ReturnType<typeof item>>()
    queue.add(item('a1'))
    queue.add(item('a2'))
    expect([queue.remove(item('a1')), queue.remove(item('a1')), queue.remove(item('b1'))]).toEqual([true, false, false])
    expect(queue.size).toBe(1)
    expect(drain(queue)).toEqual(['a2'])
  })
})
