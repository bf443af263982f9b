import { describe, expect, it } from 'vitest'
import { MemoryLayer } from '../../layers/testing/memory-layer.ts'
import { MemoryPackStore } from '../testing/memory-pack-store.ts'
import { Dice, noise } from '../testing/noise.ts'
import { restoreLayer, saveLayer } from '../testing/save-and-restore.ts'

describe('a layer that is saved again and again', () => {
  it('needs few packs all the same, and stores each byte about twice', async () => {
    const layer = new MemoryLayer()
    const packs = new MemoryPackStore()
    const session = layer.session()
    const dice = new Dice(1)
    for (let index = 0; index < 400; index++) layer.file(`folder-${index % 20}/file-${index}`, noise(4_000, index))
    let saved = await saveLayer(layer, packs, { session })
    const firstBytes = saved.uploadedBytes
    let changedBytes = 0
    for (let round = 0; round < 60; round++) {
      for (let count = 0; count < 10; count++) {
        const index = dice.roll(400)
        layer.rewrite(`folder-${index % 20}/file-${index}`, noise(4_000, 1_000 + round * 10 + count))
        changedBytes += 4_000
      }
      saved = await saveLayer(layer, packs, { session, previous: saved.state })
    }
    // Besides the bytes of files there is a new tree each time.
    expect(packs.uploadedBytes).toBeLessThan(firstBytes * 3 + changedBytes * 2 + 60 * 25_000)
    expect(saved.manifest.packs.length).toBeLessThan(40)
    packs.fetched.length = 0
    const { layer: copy } = await restoreLayer(saved.manifest, packs)
    expect(copy.snapshot()).toEqual(layer.snapshot())
    expect(packs.fetched.length).toBe(saved.manifest.packs.length)
  })

  it('is saved although an old pack cannot be read for that', async () => {
    const layer = new MemoryLayer()
    const packs = new MemoryPackStore()
    layer.file('old', 'old')
    let saved = await saveLayer(layer, packs)
    packs.packs.delete(saved.manifest.packs[0] ?? '')
    packs.packs.delete(saved.manifest.packs[1] ?? '')
    for (let round = 0; round < 20; round++) {
      layer.file(`new-${round}`, `${round}`)
      saved = await saveLayer(layer, packs, { previous: saved.state })
    }
    expect(saved.manifest.entryCount).toBe(22)
  })
})
