import { describe, expect, it } from 'vitest'
import { MemoryLayer } from '../../layers/testing/memory-layer.ts'
import { MemoryPackStore } from '../testing/memory-pack-store.ts'
import { restoreLayer, saveLayer } from '../testing/save-and-restore.ts'
import { readTree } from '../tree/read-tree.ts'

const opaque = { attributes: [{ name: 'trusted.overlay.opaque', value: Buffer.from('y') }] }

/** What comes out of `upper` on `lower`: kind by path, with `!` for opaque folders, and contents of files. */
async function merged(lower: (layer: MemoryLayer) => void, upper: (layer: MemoryLayer) => void): Promise<Record<string, string>> {
  const packs = new MemoryPackStore()
  const below = new MemoryLayer()
  lower(below)
  const version = await saveLayer(below, packs)
  const above = new MemoryLayer()
  upper(above)
  const { manifest } = await saveLayer(above, packs, { lower: version.manifest })
  const { layer } = await restoreLayer(manifest, packs)
  const found: Record<string, string> = {}
  for await (const records of readTree(manifest, packs)) {
    for (const { path, kind, attributes } of records) {
      if (path.length === 0) continue
      const name = path.toString('latin1')
      found[name] = kind === 'file' ? layer.contentOf(name).toString() : kind + (attributes.length > 0 ? '!' : '')
    }
  }
  return found
}

describe('a layer over a version', () => {
  it('joins folders, with its own properties', async () => {
    const found = await merged(
      (lower) => {
        lower.file('d/a', 'lower a')
        lower.file('d/c', 'lower c')
        lower.file('e', 'lower e')
      },
      (upper) => {
        upper.folder('d', { mode: 0o700 })
        upper.file('d/b', 'upper b')
        upper.file('d/c', 'upper c')
      },
    )
    expect(found).toEqual({ d: 'directory', 'd/a': 'lower a', 'd/b': 'upper b', 'd/c': 'upper c', e: 'lower e' })
  })

  it('hides with whiteouts, which stay, and keeps those of below', async () => {
    const found = await merged(
      (lower) => {
        lower.file('d/a', 'a')
        lower.put('d/image', { kind: 'whiteout' })
        lower.file('f/g/h', 'h')
        lower.file('f!', 'next to it')
      },
      (upper) => {
        upper.put('d/a', { kind: 'whiteout' })
        upper.put('f', { kind: 'whiteout' })
      },
    )
    expect(found).toEqual({ d: 'directory', 'd/a': 'whiteout', 'd/image': 'whiteout', f: 'whiteout', 'f!': 'next to it' })
  })

  it('hides everything below an opaque folder', async () => {
    const found = await merged(
      (lower) => {
        lower.file('d/a', 'a')
        lower.file('d/sub/deep', 'deep')
        lower.file('e', 'e')
      },
      (upper) => {
        upper.folder('d', opaque)
        upper.folder('d/sub')
        upper.file('d/sub/new', 'new')
      },
    )
    expect(found).toEqual({ d: 'directory!', 'd/sub': 'directory', 'd/sub/new': 'new', e: 'e' })
  })

  it('goes on hiding the image where the version below did', async () => {
    const found = await merged(
      (lower) => {
        lower.folder('opaque', opaque)
        lower.file('opaque/kept', 'kept')
        lower.put('was-gone', { kind: 'whiteout' })
        lower.file('was-file', 'file')
      },
      (upper) => {
        for (const name of ['opaque', 'was-gone', 'was-file']) upper.folder(name)
      },
    )
    expect(found).toEqual({ opaque: 'directory!', 'opaque/kept': 'kept', 'was-file': 'directory!', 'was-gone': 'directory!' })
  })

  it('puts everything else in the place of what was there', async () => {
    const found = await merged(
      (lower) => {
        lower.file('folder/in', 'in')
        lower.file('device/in', 'in')
        lower.file('link', 'link')
      },
      (upper) => {
        upper.file('folder', 'a file now')
        upper.put('device', { kind: 'device' })
        upper.put('link', { kind: 'symlink', target: 'folder' })
      },
    )
    expect(found).toEqual({ folder: 'a file now', link: 'symlink' })
  })

  it('keeps hard links of both apart', async () => {
    const packs = new MemoryPackStore()
    const below = new MemoryLayer()
    below.file('a', 'lower')
    below.link('a', 'b')
    below.link('a', 'c')
    const version = await saveLayer(below, packs)
    const above = new MemoryLayer()
    above.file('a', 'upper')
    above.link('a', 'd')
    const { manifest } = await saveLayer(above, packs, { lower: version.manifest })
    const { layer } = await restoreLayer(manifest, packs)
    expect(['a', 'b', 'c', 'd'].map((path) => layer.contentOf(path).toString())).toEqual(['upper', 'lower', 'lower', 'upper'])
    expect(layer.entry('b').stamp.inode).toBe(layer.entry('c').stamp.inode)
    expect(layer.entry('a').stamp.inode).toBe(layer.entry('d').stamp.inode)
    expect(layer.entry('a').links).toBe(2)
  })
})
