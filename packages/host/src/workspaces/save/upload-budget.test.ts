import { beforeAll, describe, expect, it } from 'vitest'
import { MemoryLayer } from '../../layers/testing/memory-layer.ts'
import { MemoryPackStore } from '../testing/memory-pack-store.ts'
import { Dice, noise } from '../testing/noise.ts'
import { restoreLayer, saveLayer } from '../testing/save-and-restore.ts'
import type { SaveResult } from './save-tree.ts'

const mib = 1024 * 1024

describe('what goes over the wire', () => {
  const layer = new MemoryLayer()
  const packs = new MemoryPackStore()
  const dice = new Dice(1)
  const random = noise(8 * mib, 5)
  const fileBytes = 4_000
  let first: SaveResult
  const content = (): Buffer => {
    const at = dice.roll(random.length - fileBytes)
    return Buffer.from(random.subarray(at, at + fileBytes))
  }

  beforeAll(async () => {
    for (let index = 0; index < 10_000; index++) {
      layer.file(`usr/share/folder-${index % 100}/file-${index}`, content(), { mtimeNs: 1_700_000_000_000_000_000n + BigInt(dice.roll(1_000_000_000)) })
    }
    first = await saveLayer(layer, packs)
  })

  it('packs many small files into few objects', () => {
    expect(packs.puts).toBeLessThan(10)
  })

  it('is at most 1.3 times what changed when 1 % did, all over the tree', async () => {
    for (let index = 0; index < 100; index++) layer.rewrite(`usr/share/folder-${index}/file-${index + 100 * dice.roll(100)}`, content())
    const second = await saveLayer(layer, packs, { previous: first.state })
    expect(second.uploadedBytes).toBeGreaterThan(100 * fileBytes)
    // Files of 16 KB, as people have them, are four times as large, and the tree is not.
    expect(second.uploadedBytes - 100 * fileBytes).toBeLessThan(0.3 * 100 * 16_000)
    expect((await restoreLayer(second.manifest, packs)).layer.snapshot()).toEqual(layer.snapshot())
    first = second
  })

  it('is little for a folder that moves, for new modes and owners, and for copies', async () => {
    layer.rename('usr/share/folder-1', 'usr/share/moved')
    for (let index = 0; index < 10_000; index += 7)
      if (index % 100 !== 1) layer.change(`usr/share/folder-${index % 100}/file-${index}`, { mode: 0o600, uid: 7 })
    for (let index = 2; index < 10_000; index += 100) layer.file(`copy/${index}`, layer.contentOf(`usr/share/folder-2/file-${index}`))
    const second = await saveLayer(layer, packs, { previous: first.state })
    expect(second.uploadedBytes).toBeLessThan(200_000)
    first = second
  })

  it('is at most 4 MiB for 4 KiB in a large file, in its own version and in one on top', async () => {
    const big = new MemoryLayer()
    const old = noise(64 * mib, 3)
    big.file('disk', old)
    const before = await saveLayer(big, packs)
    const changed = Buffer.from(old)
    changed.set(noise(4_096, 4), 33_000_001)
    big.rewrite('disk', changed)
    const after = await saveLayer(big, packs, { previous: before.state })
    expect(after.uploadedBytes).toBeLessThan(2.1 * mib)

    const fork = new MemoryLayer()
    fork.file('disk', changed)
    expect((await saveLayer(fork, packs, { lower: before.manifest })).uploadedBytes).toBeLessThan(2.1 * mib)
    const lost = await saveLayer(big, packs, { known: after.manifest })
    expect(lost).toMatchObject({ uploadedBytes: 0, changed: false })
  })

  it('is nothing when nothing changed', async () => {
    for (const session of [layer.session(), undefined]) {
      const again = await saveLayer(layer, packs, { previous: first.state, ...(session && { session }) })
      expect(again).toMatchObject({ changed: false, uploadedBytes: 0 })
      first = again
    }
  })
})
