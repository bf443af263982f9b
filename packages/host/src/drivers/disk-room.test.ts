import { describe, expect, it } from 'vitest'
import { DiskRoom, roomLimits } from './disk-room.ts'

const sizeBytes = 100 * 2 ** 30
const { stopBytes, goOnBytes } = roomLimits(sizeBytes)
const everyMs = { calm: 1, tight: 1 }

describe('DiskRoom', () => {
  it('tells once that the disk is full, and once that there is room again', async () => {
    let freeBytes = sizeBytes
    const logged: string[] = []
    const log = (words: string) => void logged.push(words)
    const room = new DiskRoom({ dir: '/data', everyMs, measure: async () => ({ freeBytes, sizeBytes }), logger: { error: log, info: log } as never })
    const heard: (string | undefined)[] = []
    const stop = room.watch((words) => heard.push(words))
    expect(room.words).toBeUndefined()
    freeBytes = stopBytes - 1
    await expect.poll(() => heard).toEqual([expect.stringContaining('disk is full')])
    const late: (string | undefined)[] = []
    const stopLate = room.watch((words) => late.push(words))
    expect(late).toEqual([room.words])
    // Not enough to go on without standing still again at once.
    freeBytes = goOnBytes - 1
    freeBytes = goOnBytes + 1
    await expect.poll(() => heard).toEqual([expect.stringContaining('disk is full'), undefined])
    stop()
    stopLate()
    expect(logged).toEqual([expect.stringMatching(/is full \(128 MB free in \/data\)/), expect.stringContaining('room on the disk again')])
    expect(room.wasTight).toBe(true)
  })

  it('is at peace when it cannot be measured', async () => {
    let looks = 0
    const room = new DiskRoom({ dir: '/', everyMs, measure: async () => Promise.reject(new Error(`${looks++}`)) })
    const stop = room.watch(() => expect.unreachable())
    await expect.poll(() => looks).toBeGreaterThan(2)
    stop()
    expect(room.wasTight).toBe(false)
  })
})

describe('roomLimits', () => {
  it('asks less of a small disk', () => {
    expect(roomLimits(300 * 2 ** 20).stopBytes).toBe(24 * 2 ** 20)
    expect(roomLimits(2 * 2 ** 30).stopBytes).toBeCloseTo(0.04 * 2 ** 30)
    expect(roomLimits(2 ** 40).stopBytes).toBe(128 * 2 ** 20)
  })
})
