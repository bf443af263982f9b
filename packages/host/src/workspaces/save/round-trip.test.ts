import { describe, expect, it } from 'vitest'
import { MemoryLayer } from '../../layers/testing/memory-layer.ts'
import { MemoryPackStore } from '../testing/memory-pack-store.ts'
import { noise } from '../testing/noise.ts'
import { restoreLayer, saveLayer } from '../testing/save-and-restore.ts'

describe('a layer saved and restored', () => {
  it('keeps every kind with everything that belongs to it', async () => {
    const layer = new MemoryLayer()
    const packs = new MemoryPackStore()
    layer.folder('etc', { mode: 0o1777, uid: 65_535, gid: 42, mtimeNs: -1n })
    layer.file('etc/empty', '')
    layer.file('etc/passwd', 'root:x:0:0', { mode: 0o4711, uid: 1_000, gid: 1_001, mtimeNs: 1_234_567_890_123_456_789n })
    layer.file('big', noise(3_500_000, 1))
    layer.file('a!', 'after a and what is in it')
    layer.file('a/b', 'in it')
    layer.put('link', { kind: 'symlink', target: Buffer.from([0xff, 0x2f, 0x61]) })
    layer.put('fifo', { kind: 'fifo', mode: 0o600 })
    layer.put('socket', { kind: 'socket', mode: 0o755 })
    layer.put('gone', { kind: 'whiteout' })
    layer.put(`${'n'.repeat(255)}/${'\xff\x80\n'.repeat(85)}`, { content: 'names' })
    layer.folder('opaque', { attributes: [{ name: 'trusted.overlay.opaque', value: Buffer.from('y') }] })
    layer.file('caps', 'x', {
      attributes: [
        { name: 'security.capability', value: noise(20, 2) },
        { name: 'user.comment', value: Buffer.alloc(0) },
      ],
    })
    layer.file('sparse', [{ holeBytes: 10_000_000_000 }, Buffer.from('in the middle'), { holeBytes: 70_000 }])
    layer.file('linked', noise(700_000, 3))
    layer.link('linked', 'etc/linked too')
    layer.link('linked', 'zz')
    layer.put('dev', { kind: 'device' })

    const saved = await saveLayer(layer, packs)
    expect(saved).toMatchObject({ changed: true, skippedCount: 1 })
    expect(saved.manifest.entryCount).toBe(layer.paths().length - 1)
    expect(saved.uploadedBytes).toBe(packs.uploadedBytes)
    expect(saved.manifest.packs).toEqual([...packs.packs.keys()].sort())
    const snapshot = (of: MemoryLayer): unknown[] => {
      of.file('sparse', 'compared below')
      of.change('sparse', { mtimeNs: 0n })
      return of.snapshot()
    }
    const { layer: again } = await restoreLayer(saved.manifest, packs)
    expect(again.parts('sparse')).toEqual(layer.parts('sparse'))
    expect(snapshot(again)).toEqual(snapshot(layer))
  })
})
