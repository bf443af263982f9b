import { describe, expect, it } from 'vitest'
import { RoomWait } from './room-wait.ts'

const full = () => Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })
const quick = { firstWaitMs: 1, longestWaitMs: 2 }

describe('RoomWait', () => {
  it('writes again until there is room, and says meanwhile why it waits', async () => {
    const told: string[] = []
    const wait = new RoomWait({ ...quick, onFull: (words) => told.push(words) })
    let tries = 0
    const seen: (string | undefined)[] = []
    const write = async () => {
      seen.push(wait.words)
      if (++tries < 4) throw full()
      return 'written'
    }
    const written = wait.run(write)
    await wait.sticking
    expect(await written).toBe('written')
    expect(seen).toEqual([undefined, told[0], told[0], told[0]])
    expect(told).toEqual([expect.stringContaining('is full')])
    expect(wait.words).toBeUndefined()
  })

  it('does not wait after other errors', async () => {
    const wait = new RoomWait(quick)
    await expect(wait.run(async () => Promise.reject(new Error('no such table')))).rejects.toThrow('no such table')
  })

  it('rejects with why it is full once nobody waits any more', async () => {
    const giveUp = new AbortController()
    const wait = new RoomWait({ firstWaitMs: 60_000, giveUp: giveUp.signal })
    const written = wait.run(async () => Promise.reject(full()))
    await wait.sticking
    giveUp.abort()
    await expect(written).rejects.toThrow('ENOSPC')
    const other = new RoomWait({ firstWaitMs: 60_000 })
    other.giveUp()
    await expect(other.run(async () => Promise.reject(full()))).rejects.toThrow('ENOSPC')
  })
})
