import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { MemoryLayer } from '../../layers/testing/memory-layer.ts'
import { MemoryPackStore } from '../testing/memory-pack-store.ts'
import { noise } from '../testing/noise.ts'
import { saveLayer } from '../testing/save-and-restore.ts'
import { readState, writeState } from './state-file.ts'

describe('the state of a layer in a file', () => {
  let folder: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'mags-state-'))
  })
  afterEach(() => rm(folder, { recursive: true }))

  it('is as good as the one in memory, also over another version', async () => {
    const packs = new MemoryPackStore()
    const below = new MemoryLayer()
    below.file('below', noise(2_000_000, 1))
    const lower = (await saveLayer(below, packs)).manifest
    const layer = new MemoryLayer()
    layer.file('a', 'a')
    const saved = await saveLayer(layer, packs, { lower })
    const file = join(folder, 'state')
    await writeState(file, saved.state)
    expect(await readdir(folder)).toEqual(['state'])
    const read = await readState(file)
    expect(read?.manifest).toEqual(saved.manifest)
    packs.fetched.length = 0
    expect(await saveLayer(layer, packs, { lower, previous: read })).toMatchObject({ changed: false, uploadedBytes: 0 })
    // Not even the tree below had to be fetched.
    expect(packs.fetched).toEqual([])
  })

  it('counts as absent when it is damaged anywhere, cut short, or missing', async () => {
    const layer = new MemoryLayer()
    layer.file('a', noise(1_000_000, 1))
    const { state } = await saveLayer(layer, new MemoryPackStore())
    const file = join(folder, 'state')
    expect(await readState(file)).toBeUndefined()
    await writeState(file, state)
    const bytes = await readFile(file)
    for (let at = 0; at < bytes.length; at++) {
      const wrong = Buffer.from(bytes)
      wrong[at] = (wrong[at] ?? 0) ^ (1 << (at % 8))
      await writeFile(file, at % 2 === 0 ? wrong : bytes.subarray(0, at))
      expect(await readState(file), `byte ${at}`).toBeUndefined()
    }
  })
})
