import { describe, expect, it } from 'vitest'
import { MemoryLayer } from '../../layers/testing/memory-layer.ts'
import { checkScope } from '../local/check-scope.ts'
import { WorkspaceSession } from '../local/workspace-session.ts'
import type { Manifest } from '../repository/repository.ts'
import { MemoryPackStore } from '../testing/memory-pack-store.ts'
import { noise } from '../testing/noise.ts'
import { restoreLayer, saveLayer } from '../testing/save-and-restore.ts'
import { readTree } from '../tree/read-tree.ts'

async function pathsOf(manifest: Manifest, packs: MemoryPackStore): Promise<string[]> {
  const paths: string[] = []
  for await (const records of readTree(manifest, packs)) paths.push(...records.map(({ path }) => path.toString('latin1')))
  return paths
}

const scoped = (layer: MemoryLayer) => new WorkspaceSession(layer.session(), 'workspace')

describe('a save of one folder', () => {
  it('stores nothing of what lies elsewhere, and does not read it', async () => {
    const layer = new MemoryLayer()
    const packs = new MemoryPackStore()
    for (const path of ['workspace/a', 'root/secret', 'etc/passwd', 'xorg/y', 'zzz']) layer.file(path, noise(300_000, path.charCodeAt(0)))
    layer.put('workspace/gone', { kind: 'whiteout' })
    layer.folder('workspace/opaque', { attributes: [{ name: 'trusted.overlay.opaque', value: Buffer.from('y') }] })
    layer.put('var/device', { kind: 'device' })
    const read: string[] = []
    layer.onRead = (path, at) => void (at === 'end' && read.push(path))
    const session = scoped(layer)
    const first = await saveLayer(layer, packs, { session })
    expect(await pathsOf(first.manifest, packs)).toEqual(['', 'workspace', 'workspace/a', 'workspace/gone', 'workspace/opaque'])
    expect([read, first.skippedCount, first.manifest.sizeBytes]).toEqual([['workspace/a'], 0, 300_000])
    // A file of the folder has other names elsewhere: they are no part of it.
    layer.link('workspace/a', 'root/other')
    layer.file('root/more', noise(300_000, 9))
    layer.change('', { mode: 0o700 })
    const second = await saveLayer(layer, packs, { session, previous: first.state })
    expect(await pathsOf(second.manifest, packs)).toEqual(await pathsOf(first.manifest, packs))
    expect([...packs.packs.values()].some((pack) => pack.includes(noise(300_000, 'r'.charCodeAt(0)).subarray(0, 64)))).toBe(false)
    // Nothing but the rest has changed.
    layer.file('root/even more', 'x')
    layer.remove('etc')
    expect(await saveLayer(layer, packs, { session, previous: second.state })).toMatchObject({ changed: false, uploadedBytes: 0 })
    await checkScope(second.manifest, packs, '/workspace')
  })

  it('knows all of the folder again once the rest is gone, in another session', async () => {
    const layer = new MemoryLayer()
    const packs = new MemoryPackStore()
    for (let index = 0; index < 50; index++) layer.file(`workspace/${index}`, noise(10_000, index))
    layer.file('root/b', 'x')
    const first = await saveLayer(layer, packs, { session: scoped(layer) })
    layer.remove('root')
    layer.change('', { mode: 0o755 })
    const read: string[] = []
    layer.onRead = (path) => void read.push(path)
    expect(await saveLayer(layer, packs, { session: scoped(layer), previous: first.state })).toMatchObject({ changed: false, uploadedBytes: 0 })
    expect(read).toEqual([])
    layer.remove('workspace/7')
    const second = await saveLayer(layer, packs, { session: scoped(layer), previous: first.state })
    expect(await pathsOf(second.manifest, packs)).not.toContain('workspace/7')
    const { layer: again, state } = await restoreLayer(second.manifest, packs)
    expect(again.paths().filter((path) => path !== '' && !/^workspace(\/|$)/.test(path))).toEqual([])
    expect(await saveLayer(again, packs, { session: scoped(again), previous: state })).toMatchObject({ changed: false })
  })

  it('is told from a version that has more', async () => {
    const layer = new MemoryLayer()
    const packs = new MemoryPackStore()
    layer.file('workspace/a', 'x')
    layer.file('root/b', 'x')
    const { manifest } = await saveLayer(layer, packs)
    await expect(checkScope(manifest, packs, '/workspace')).rejects.toMatchObject({ code: 'bad_request', message: expect.stringContaining('/workspace') })
    // What was kept whole before and is not from now on loses the rest with its next version.
    const narrow = await saveLayer(layer, packs, { session: scoped(layer), known: manifest })
    expect(await pathsOf(narrow.manifest, packs)).toEqual(['', 'workspace', 'workspace/a'])
  })
})
