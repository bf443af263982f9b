import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import type { LayerSession, LayerWrite } from '../../layers/layer-session.ts'
import { AgentSandboxFiles } from '../../sandboxes/sandbox-files.ts'
import { FakeDriver } from './fake-driver.ts'
import { FakeLayer } from './fake-layer.ts'
import { FakeWorld } from './fake-machine.ts'

const shape = { image: 'debian-12', vcpus: 1, memoryMb: 256, diskGb: 1 }
const write = { mode: 0o640, offset: 0, truncate: true, parents: true }

async function all<T>(batches: AsyncIterable<readonly T[]>): Promise<T[]> {
  const found: T[] = []
  for await (const batch of batches) found.push(...batch)
  return found
}
const paths = async (session: LayerSession) => (await all(session.walk())).map(({ path }) => path.toString())

describe('roots and layers of the fake driver', () => {
  it('keeps files on a disk from one sandbox to the next, and copies those of lower disks', async () => {
    const driver = new FakeDriver({ world: new FakeWorld() })
    const first = await driver.create(shape)
    await first.attach(shape, { lowerDisks: [], upperDisk: '/a' })
    await new AgentSandboxFiles(first.agent).write('/root/kept', Readable.from([Buffer.from('one')]))
    await first.halt()
    expect(await paths(await first.openLayer())).toContain('root/kept')
    await first.destroy()
    const fork = await driver.create(shape)
    await fork.attach(shape, { lowerDisks: ['/a'], upperDisk: '/b' })
    await new AgentSandboxFiles(fork.agent).write('/root/kept', Readable.from([Buffer.from('two')]))
    const again = await driver.create(shape)
    await again.attach(shape, { lowerDisks: [], upperDisk: '/a' })
    expect((await buffer(new AgentSandboxFiles(again.agent).read('/root/kept'))).toString()).toBe('one')
  })

  it('walks in tree order, tells what changed and what is gone, and reads', async () => {
    const files = new FakeWorld().disk('/a')
    for (const path of ['/a!', '/a/z', '/a/b/c', '/b']) files.write(path, Buffer.from(path), write)
    const session = new FakeLayer(files)
    expect(await paths(session)).toEqual(['', 'a', 'a/b', 'a/b/c', 'a/z', 'a!', 'b'])
    files.write('/b', Buffer.from('new'), write)
    files.remove('/a/b', { recursive: true })
    const changes = await all(session.changes())
    expect(changes.map((change) => ('present' in change ? `+${change.present.path}` : `-${change.removed}`))).toEqual(['+b', '-a/b', '-a/b/c'])
    expect(await all(session.changes())).toEqual([])
    const parts = []
    for await (const part of session.read([Buffer.from('b'), Buffer.from('gone')])) parts.push(part)
    expect(parts.map(({ kind }) => kind)).toEqual(['data', 'end', 'missing'])
    session.close()
    await expect(all(session.walk())).rejects.toThrow(/closed/)
  })

  it('fills a disk', async () => {
    const world = new FakeWorld()
    const entry = { uid: 0, gid: 0, attributes: [], sizeBytes: 0, mtimeNs: 0n }
    async function* tree(): AsyncIterable<LayerWrite> {
      yield { kind: 'entry', entry: { ...entry, path: Buffer.from(''), kind: 'directory', mode: 0o755 } }
      yield { kind: 'entry', entry: { ...entry, path: Buffer.from('file'), kind: 'file', mode: 0o600, sizeBytes: 6 } }
      yield { kind: 'data', offset: 2, bytes: Buffer.from('ab') }
    }
    await new FakeLayer(world.disk('/a')).write(tree())
    expect(world.disk('/a').read('/file', 0, 10).toString()).toBe('\0\0ab\0\0')
  })
})
