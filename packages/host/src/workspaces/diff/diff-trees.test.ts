import { describe, expect, it } from 'vitest'
import { MemoryLayer } from '../../layers/testing/memory-layer.ts'
import { MemoryPackStore } from '../testing/memory-pack-store.ts'
import { noise } from '../testing/noise.ts'
import { saveLayer } from '../testing/save-and-restore.ts'
import { diffTrees } from './diff-trees.ts'

async function difference(prepare: (layer: MemoryLayer) => void, change: (layer: MemoryLayer) => void, options = { limit: 100, content: false }) {
  const packs = new MemoryPackStore()
  const layer = new MemoryLayer()
  prepare(layer)
  const before = await saveLayer(layer, packs)
  change(layer)
  // From nothing, so that not even equal files have the same blocks.
  const after = await saveLayer(layer, packs)
  return diffTrees(before.manifest, after.manifest, packs, options)
}

describe('the differences of two versions', () => {
  it('are what was added, changed and removed', async () => {
    const { differences, truncated } = await difference(
      (layer) => {
        layer.file('gone', 'gone')
        layer.file('kept', noise(5_000, 1))
        layer.file('mode', 'x')
        layer.file('same size', 'aaaa')
        layer.file('becomes/a', 'folder')
        layer.put('hidden', { kind: 'whiteout' })
        layer.put('link', { kind: 'symlink', target: 'here' })
        layer.file('big', noise(3_000_000, 2))
      },
      (layer) => {
        layer.remove('gone')
        layer.file('kept', noise(5_000, 1))
        layer.change('mode', { mode: 0o4755 })
        layer.rewrite('same size', 'bbbb')
        layer.file('becomes', 'file')
        layer.file('hidden', 'back')
        layer.put('image', { kind: 'whiteout' })
        layer.put('link', { kind: 'symlink', target: 'there' })
        layer.file('n\xff', 'new')
        const big = noise(3_000_000, 2)
        layer.file('big', big)
      },
    )
    expect(truncated).toBe(false)
    const file = (sizeBytes: number, mode = 0o644) => ({ kind: 'file', sizeBytes, mode })
    expect(differences).toEqual([
      { path: '/becomes', change: 'changed', before: { kind: 'directory', sizeBytes: 0, mode: 0o755 }, after: file(4) },
      { path: '/becomes/a', change: 'removed', before: file(6) },
      { path: '/gone', change: 'removed', before: file(4) },
      { path: '/hidden', change: 'added', before: { kind: 'removed', sizeBytes: 0, mode: 0 }, after: file(4) },
      { path: '/image', change: 'removed', after: { kind: 'removed', sizeBytes: 0, mode: 0 } },
      { path: '/link', change: 'changed', before: { kind: 'symlink', sizeBytes: 0, mode: 0o777 }, after: { kind: 'symlink', sizeBytes: 0, mode: 0o777 } },
      { path: '/mode', change: 'changed', before: file(1), after: file(1, 0o4755) },
      { path: '/n\ufffd', change: 'added', after: file(3) },
      { path: '/same size', change: 'changed', before: file(4), after: file(4) },
    ])
  })

  it('show the lines of text files only', async () => {
    const { differences } = await difference(
      (layer) => {
        layer.file('text', 'one\ntwo\nthree\n')
        layer.file('binary', Buffer.from([1, 0, 2]))
        layer.file('large', 'x'.repeat(1024 * 1024 + 1))
        layer.file('mode', 'm')
      },
      (layer) => {
        layer.rewrite('text', 'one\n2\nthree\n')
        layer.rewrite('binary', Buffer.from([1, 0, 3]))
        layer.rewrite('large', 'y')
        layer.change('mode', { mode: 0 })
        layer.file('new', 'hello\n')
      },
      { limit: 100, content: true },
    )
    const content = Object.fromEntries(differences.map((one) => [one.path, one.content]))
    expect(Object.keys(content)).toEqual(['/binary', '/large', '/mode', '/new', '/text'])
    expect(content['/binary'] ?? content['/large'] ?? content['/mode']).toBeUndefined()
    expect(content['/text']).toContain('--- a/text\n+++ b/text\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n')
    expect(content['/new']).toContain('--- /dev/null\n+++ b/new\n@@ -0,0 +1,1 @@\n+hello\n')
  })

  it('stop at the limit', async () => {
    const many = (layer: MemoryLayer): void => {
      for (let index = 0; index < 10; index++) layer.file(`file-${index}`, `${index}`)
    }
    expect(await difference(() => undefined, many, { limit: 9, content: false })).toMatchObject({ truncated: true, differences: { length: 9 } })
    expect(await difference(() => undefined, many, { limit: 10, content: false })).toMatchObject({ truncated: false, differences: { length: 10 } })
  })
})
