import { beforeAll, describe, expect, it } from 'vitest'
import { MemoryLayer } from '../../layers/testing/memory-layer.ts'
import { blockHeaderBytes, decodeBlock } from '../blocks/block-codec.ts'
import { BlockTable } from '../blocks/block-table.ts'
import type { Manifest } from '../repository/repository.ts'
import { MemoryPackStore } from '../testing/memory-pack-store.ts'
import { Dice, noise } from '../testing/noise.ts'
import { changeAtRandom } from '../testing/random-layer.ts'
import { restoreLayer, saveLayer } from '../testing/save-and-restore.ts'
import { FormatError } from '../tree/byte-reader.ts'
import { decodeSegment } from '../tree/segment-codec.ts'
import { TreeChecker } from '../tree/tree-checker.ts'

/** A version, and a store that has the same packs with one of them changed, under the id of before. */
async function version(): Promise<{ manifest: Manifest; packs: MemoryPackStore }> {
  const packs = new MemoryPackStore()
  const layer = new MemoryLayer()
  layer.file('folder/small', 'some text that can be compressed, compressed, compressed')
  layer.file('folder/large', noise(9_000, 1))
  layer.link('folder/small', 'folder/linked')
  const { manifest } = await saveLayer(layer, packs)
  return { manifest, packs }
}

describe('a damaged version', () => {
  it('names pack and offset, whichever bit of a pack is wrong', async () => {
    const { manifest, packs } = await version()
    for (const [id, bytes] of [...packs.packs]) {
      const far = Array.from({ length: 40 }, (_, step) => Math.floor((bytes.length * step) / 40))
      const near = Array.from({ length: Math.min(bytes.length, 3 * blockHeaderBytes) }, (_, at) => at)
      for (const at of new Set([...near, ...far, bytes.length - 1])) {
        const wrong = Buffer.from(bytes)
        wrong[at] = (wrong[at] ?? 0) ^ (1 << (at % 8))
        packs.packs.set(id, wrong)
        await expect(restoreLayer(manifest, packs), `byte ${at} of ${bytes.length}`).rejects.toMatchObject({
          code: 'workspace_damaged',
          details: { pack: id, offset: expect.any(Number) },
        })
      }
      for (const length of [0, 1, blockHeaderBytes, bytes.length - 1]) {
        packs.packs.set(id, bytes.subarray(0, length))
        await expect(restoreLayer(manifest, packs)).rejects.toMatchObject({ code: 'workspace_damaged', details: { pack: id } })
      }
      packs.packs.set(id, bytes)
    }
    await expect(restoreLayer(manifest, packs)).resolves.toBeDefined()
  })

  it('says so when a pack is missing, or a newer program wrote it', async () => {
    const { manifest, packs } = await version()
    for (const [id, bytes] of [...packs.packs]) {
      packs.packs.delete(id)
      await expect(restoreLayer(manifest, packs)).rejects.toMatchObject({ code: 'workspace_damaged' })
      packs.packs.set(id, bytes)
    }
    const segment = manifest.segments[0]
    const pack = packs.packs.get(segment?.pack ?? '')
    pack?.writeUInt8(2, (segment?.offset ?? 0) + 2)
    await expect(restoreLayer(manifest, packs)).rejects.toThrow('format 2, which this program does not know')
  })
})

describe('a hostile segment', () => {
  let raw: Buffer
  beforeAll(async () => {
    const packs = new MemoryPackStore()
    const layer = new MemoryLayer()
    const dice = new Dice(7)
    for (let changes = 0; changes < 30; changes++) changeAtRandom(layer, dice)
    const { manifest } = await saveLayer(layer, packs)
    const [segment] = manifest.segments
    if (segment === undefined) throw new Error('a tree without segments')
    const pack = packs.packs.get(segment.pack) ?? Buffer.alloc(0)
    const stored = pack.subarray(segment.offset, segment.offset + segment.lengthBytes)
    raw = await decodeBlock(stored, { rawBytes: segment.rawBytes, digest: Buffer.from(segment.sha256, 'hex') })
  })

  /** Reads it all; true when it was refused. Anything but a FormatError is a fault. */
  function isRefused(bytes: Buffer): boolean {
    try {
      const checker = new TreeChecker()
      for (const records of decodeSegment(bytes, new BlockTable())) for (const record of records) checker.see(record)
      return false
    } catch (error) {
      if (error instanceof FormatError) return true
      throw error
    }
  }

  it('is refused wherever it ends', () => {
    expect(isRefused(raw)).toBe(false)
    for (let length = 0; length < raw.length; length++) expect(isRefused(raw.subarray(0, length)), `${length} bytes`).toBe(true)
    expect(isRefused(Buffer.concat([raw, Buffer.alloc(1)]))).toBe(true)
  })

  it('is read or refused in words, whatever a byte is', () => {
    let refused = 0
    for (let at = 0; at < raw.length; at++) {
      for (const value of [0, 0xff, (raw[at] ?? 0) ^ (1 << (at % 8))]) {
        const wrong = Buffer.from(raw)
        wrong[at] = value
        if (isRefused(wrong)) refused++
      }
    }
    expect(refused).toBeGreaterThan(raw.length)
  })

  it('is read or refused in words when it is noise', () => {
    for (let seed = 0; seed < 2_000; seed++) {
      const bytes = noise(1 + (seed % 300), seed)
      bytes.set(raw.subarray(0, Math.min(bytes.length, 3 + (seed % 60))))
      expect(isRefused(bytes)).toBe(true)
    }
  })
})
