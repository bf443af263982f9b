import { describe, expect, it } from 'vitest'
import type { LayerSession } from '../../layers/layer-session.ts'
import { MemoryLayer } from '../../layers/testing/memory-layer.ts'
import { MemoryPackStore } from '../testing/memory-pack-store.ts'
import { noise } from '../testing/noise.ts'
import { restoreLayer, saveLayer, testImage } from '../testing/save-and-restore.ts'
import { saveTree } from './save-tree.ts'

/** Writes down in which order things happen. */
function recorded(session: LayerSession, events: string[]): LayerSession {
  return {
    walk: () => {
      events.push('walk')
      return session.walk()
    },
    changes: () => {
      events.push('changes')
      return session.changes()
    },
    read: (paths) => {
      events.push(`read ${paths.map((path) => path.toString()).join()}`)
      return session.read(paths)
    },
    write: (tree) => session.write(tree),
    close: () => session.close(),
  }
}

function scripted(layer: MemoryLayer, events: string[], onFreeze: (round: number) => void = () => undefined) {
  let freezes = 0
  return {
    session: recorded(layer.session(), events),
    guard: {
      freeze: async () => {
        onFreeze(++freezes)
        events.push('freeze')
      },
      thaw: async () => {
        events.push('thaw')
      },
    },
  }
}

describe('saving what is running', () => {
  it('reads first, then freezes for what changed meanwhile, and thaws before it stores', async () => {
    const layer = new MemoryLayer()
    const packs = new MemoryPackStore()
    const events: string[] = []
    layer.file('a', 'a')
    layer.file('b', 'b')
    packs.onPut = async () => {
      events.push('put')
    }
    const { session, guard } = scripted(layer, events, () => layer.rewrite('b', 'changed'))
    const first = await saveLayer(layer, packs, { session, guard })
    expect(events).toEqual(['walk', 'read a,b', 'freeze', 'changes', 'read b', 'thaw', 'put', 'put'])
    expect((await restoreLayer(first.manifest, packs)).layer.snapshot()).toEqual(layer.snapshot())

    events.length = 0
    layer.file('c', 'c')
    const quiet = { freeze: guard.freeze, thaw: guard.thaw }
    const second = await saveLayer(layer, packs, { session, guard: { ...quiet, freeze: async () => void events.push('freeze') }, previous: first.state })
    expect(events).toEqual(['changes', 'read c', 'freeze', 'changes', 'thaw', 'put', 'put'])

    events.length = 0
    const third = await saveLayer(layer, packs, { session, guard: { ...quiet, freeze: async () => void events.push('freeze') }, previous: second.state })
    // Nothing changed, so nobody has to stand still.
    expect(events).toEqual(['changes'])
    expect(third).toMatchObject({ changed: false, uploadedBytes: 0, manifest: second.manifest })
  })

  it('lets go for another round when much changed, three times at most', async () => {
    const layer = new MemoryLayer()
    const packs = new MemoryPackStore()
    const events: string[] = []
    layer.file('big', noise(100, 1))
    const { session, guard } = scripted(layer, events, (round) => layer.rewrite('big', noise(34 * 1024 * 1024, round)))
    const saved = await saveLayer(layer, packs, { session, guard })
    const round = ['freeze', 'changes', 'thaw', 'read big']
    expect(events).toEqual(['walk', 'read big', ...round, ...round, 'freeze', 'changes', 'read big', 'thaw'])
    expect((await restoreLayer(saved.manifest, packs)).layer.contentOf('big').equals(layer.contentOf('big'))).toBe(true)
  })

  it('reads torn and vanished files again', async () => {
    const layer = new MemoryLayer()
    const packs = new MemoryPackStore()
    const events: string[] = []
    for (const path of ['grows', 'stays', 'vanishes']) layer.file(path, path)
    layer.onRead = (path, at) => {
      if (at !== 'end') return
      layer.onRead = path === 'grows' ? layer.onRead : undefined
      if (path === 'grows') layer.rewrite('grows', 'more than before')
      else layer.remove('vanishes')
    }
    const { session, guard } = scripted(layer, events)
    const saved = await saveLayer(layer, packs, { session, guard })
    expect(events).toEqual(['walk', 'read grows,stays,vanishes', 'freeze', 'changes', 'read grows', 'thaw'])
    expect((await restoreLayer(saved.manifest, packs)).layer.snapshot()).toEqual(layer.snapshot())
  })

  it('thaws after a failure, and can be tried again', async () => {
    const layer = new MemoryLayer()
    const packs = new MemoryPackStore()
    const events: string[] = []
    layer.file('a', 'a')
    const { session, guard } = scripted(layer, events)
    const first = await saveLayer(layer, packs, { session, guard })
    layer.rewrite('a', 'aa')
    packs.onPut = async () => {
      throw new Error('no store')
    }
    events.length = 0
    await expect(saveLayer(layer, packs, { session, guard, previous: first.state })).rejects.toThrow('no store')
    packs.onPut = undefined
    const broken = {
      ...session,
      changes: () => {
        throw new Error('gone')
      },
    }
    await expect(saveTree({ session: broken, packs, image: testImage, clock: () => layer.tick(), guard, previous: first.state })).rejects.toThrow('gone')
    expect(events.filter((event) => event === 'freeze').length).toBe(events.filter((event) => event === 'thaw').length)
    events.length = 0
    const second = await saveLayer(layer, packs, { session, guard, previous: first.state })
    // The session remembers what the failed save saw: only a walk is safe.
    expect(events[0]).toBe('walk')
    expect((await restoreLayer(second.manifest, packs)).layer.snapshot()).toEqual(layer.snapshot())
  })

  it('names a file that changes although nothing runs', async () => {
    const layer = new MemoryLayer()
    layer.file('folder/odd', 'x')
    layer.onRead = (path, at) => {
      if (at === 'end') layer.rewrite(path, 'y')
    }
    await expect(saveLayer(layer, new MemoryPackStore())).rejects.toMatchObject({
      code: 'workspace_not_savable',
      message: expect.stringContaining('folder/odd'),
    })
  })

  it('does not trust a stamp that is too young', async () => {
    const layer = new MemoryLayer()
    const packs = new MemoryPackStore()
    layer.tickNs = 0n
    layer.file('a', 'old')
    const session = layer.session()
    const first = await saveLayer(layer, packs, { session })
    // The same length in the same tick of the clock: nothing but the bytes is different.
    layer.rewrite('a', 'new')
    const second = await saveLayer(layer, packs, { session, previous: first.state })
    expect(second.changed).toBe(true)
    expect((await restoreLayer(second.manifest, packs)).layer.contentOf('a').toString()).toBe('new')
    const third = await saveLayer(layer, packs, { previous: second.state })
    expect(third).toMatchObject({ changed: false, uploadedBytes: 0 })
  })
})
