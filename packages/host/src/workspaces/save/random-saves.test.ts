import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { MemoryLayer } from '../../layers/testing/memory-layer.ts'
import type { Manifest } from '../repository/repository.ts'
import { MemoryPackStore } from '../testing/memory-pack-store.ts'
import { Dice } from '../testing/noise.ts'
import { changeAtRandom } from '../testing/random-layer.ts'
import { restoreLayer, saveLayer } from '../testing/save-and-restore.ts'
import type { SaveState } from './save-state.ts'
import { readState, writeState } from './state-file.ts'

describe('random trees', () => {
  it.each(Array.from({ length: 12 }, (_, seed) => seed))('come back as they were, save after save, restore after restore (seed %i)', async (seed) => {
    const folder = await mkdtemp(join(tmpdir(), 'mags-tree-'))
    try {
      const dice = new Dice(seed)
      const packs = new MemoryPackStore()
      let layer = new MemoryLayer()
      let session = layer.session()
      let previous: SaveState | undefined
      let known: Manifest | undefined
      for (let step = 0; step < 6; step++) {
        for (let changes = dice.roll(30); changes > 0; changes--) changeAtRandom(layer, dice)
        // Things go on changing while the sandbox is saved, until it is frozen.
        let frozen = false
        layer.onRead = () => {
          if (!frozen && dice.roll(4) === 0) changeAtRandom(layer, dice)
        }
        const guard = {
          freeze: async () => {
            if (dice.roll(2) === 0) changeAtRandom(layer, dice)
            frozen = true
          },
          thaw: async () => {
            frozen = false
          },
        }
        const isRunning = dice.roll(2) === 0
        if (!isRunning) layer.onRead = undefined
        const saved = await saveLayer(layer, packs, { session, previous, known, guard: isRunning ? guard : undefined })
        layer.onRead = undefined
        const copy = await restoreLayer(saved.manifest, packs)
        expect(copy.layer.snapshot()).toEqual(layer.snapshot())
        expect(saved.manifest.packs.every((id) => packs.packs.has(id))).toBe(true)

        // Nothing has changed: nothing is stored, whatever was known before.
        const again = await saveLayer(layer, packs, { session, previous: saved.state })
        expect(again).toMatchObject({ changed: false, uploadedBytes: 0, manifest: saved.manifest })

        known = saved.manifest
        const next = dice.roll(4)
        if (next === 0) {
          const other = await saveLayer(copy.layer, packs, { previous: copy.state })
          expect(other).toMatchObject({ changed: false, uploadedBytes: 0 })
          layer = copy.layer
          previous = other.state
          session = layer.session()
        } else if (next === 1) {
          await writeState(join(folder, 'state'), again.state)
          previous = await readState(join(folder, 'state'))
          expect(previous).toBeDefined()
          session = layer.session()
        } else if (next === 2) {
          previous = undefined
          session = layer.session()
        } else previous = again.state
      }
    } finally {
      await rm(folder, { recursive: true })
    }
  })

  it.each(Array.from({ length: 8 }, (_, seed) => seed))('stay whole over a version under them (seed %i)', async (seed) => {
    const dice = new Dice(100 + seed)
    const packs = new MemoryPackStore()
    const below = new MemoryLayer()
    for (let changes = 0; changes < 40; changes++) changeAtRandom(below, dice)
    const lower = (await saveLayer(below, packs)).manifest
    const layer = new MemoryLayer()
    const session = layer.session()
    let previous: SaveState | undefined
    for (let step = 0; step < 5; step++) {
      for (let changes = dice.roll(20); changes > 0; changes--) changeAtRandom(layer, dice)
      const saved = await saveLayer(layer, packs, { session, previous, lower })
      // From nothing but the two layers it is the same tree.
      const { layer: whole } = await restoreLayer(saved.manifest, packs)
      const anew = await saveLayer(layer, packs, { lower })
      expect((await restoreLayer(anew.manifest, packs)).layer.snapshot()).toEqual(whole.snapshot())
      const flat = await saveLayer(whole, packs)
      expect(flat.manifest.entryCount).toBe(saved.manifest.entryCount)
      previous = saved.state
    }
  })
})
