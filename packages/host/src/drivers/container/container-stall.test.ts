import { describe, expect, it } from 'vitest'
import { ContainerStall } from './container-stall.ts'

function makeStall(stands = () => false, frozen = Promise.resolve()) {
  const done: string[] = []
  let tell: (words: string | undefined) => void = () => undefined
  let watched = 0
  const stall = new ContainerStall({
    cgroups: { freeze: () => frozen.then(() => void done.push('freeze')), thaw: async () => void done.push('thaw') },
    logger: { warn: () => expect.unreachable() } as never,
    room: {
      watch: (listener) => {
        watched++
        tell = listener
        return () => watched--
      },
    },
    cgroup: '/mags/1',
    sandbox: '1',
    stands,
  })
  return { stall, done, tell: (words: string | undefined) => tell(words), watched: () => watched }
}

describe('ContainerStall', () => {
  it('stops a container while the disk is full', async () => {
    const { stall, done, tell, watched } = makeStall()
    const heard: (string | undefined)[] = []
    stall.watch((words) => heard.push(words))
    stall.begin()
    tell('full')
    tell('full')
    expect(stall.words).toBe('full')
    await expect.poll(() => done).toEqual(['freeze'])
    // It was held for a save, which is over.
    await stall.thaw()
    expect(done).toEqual(['freeze'])
    tell(undefined)
    await expect.poll(() => done).toEqual(['freeze', 'thaw'])
    expect(heard).toEqual(['full', undefined])
    await stall.end()
    expect(watched()).toBe(0)
  })

  it('has nothing freeze it any more once it ended', async () => {
    const freezing = Promise.withResolvers<void>()
    const { stall, tell } = makeStall(() => false, freezing.promise)
    stall.begin()
    tell('full')
    await new Promise((resolve) => setImmediate(resolve))
    let ended = false
    const ending = stall.end().then(() => {
      ended = true
    })
    await new Promise((resolve) => setImmediate(resolve))
    expect(ended).toBe(false)
    freezing.resolve()
    await ending
  })

  it('does not wake one that sleeps when there is room', async () => {
    const { stall, done, tell } = makeStall(() => true)
    stall.begin()
    tell('full')
    tell(undefined)
    tell('full')
    await expect.poll(() => done.length).toBeGreaterThan(0)
    tell(undefined)
    await new Promise((resolve) => setImmediate(resolve))
    expect(done).not.toContain('thaw')
  })
})
