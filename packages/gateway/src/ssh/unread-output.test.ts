import { constants } from 'node:os'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { UnreadOutput } from './unread-output.ts'

const { SIGPIPE, SIGHUP, SIGTERM } = constants.signals
let signals: number[] = []
const program = { signal: (signal: number) => void signals.push(signal) }
beforeEach(() => {
  signals = []
  vi.useFakeTimers({ toFake: ['performance'] })
})
afterEach(() => void vi.useRealTimers())

it('drops nothing while somebody reads', () => {
  const unread = new UnreadOutput()
  unread.endInput()
  expect(unread.drops(program)).toBe(false)
  expect(unread.deaf.aborted).toBe(false)
})

it('drops what was under way without a signal, and then tells who still writes, one signal after the other', () => {
  const unread = new UnreadOutput()
  unread.begin()
  const after = (ms: number) => {
    vi.advanceTimersByTime(ms)
    unread.begin()
    expect(unread.drops(program)).toBe(true)
    return signals
  }
  expect(after(200)).toEqual([])
  expect(after(200)).toEqual([SIGPIPE])
  expect(after(200)).toEqual([SIGPIPE])
  expect(after(200)).toEqual([SIGPIPE, SIGHUP])
  expect(after(5000)).toEqual([SIGPIPE, SIGHUP, SIGTERM])
  expect(after(5000)).toEqual([SIGPIPE, SIGHUP, SIGTERM])
})

it('tells of what was left behind and still writes', async () => {
  const unread = new UnreadOutput()
  unread.begin()
  const leftBehind = unread.exited()
  vi.advanceTimersByTime(1000)
  unread.drops(program)
  await leftBehind
  expect(signals).toEqual([])
})

it('is deaf when the input has ended, too', () => {
  const unread = new UnreadOutput()
  unread.begin()
  expect(unread.deaf.aborted).toBe(false)
  unread.endInput()
  expect(unread.deaf.aborted).toBe(true)
})
