import { describe, expect, it } from 'vitest'
import type { LayerEntry } from '../../layers/layer-session.ts'
import { MemoryLayer } from '../../layers/testing/memory-layer.ts'
import { WorkspaceSession } from './workspace-session.ts'

async function pathsOf(session: WorkspaceSession): Promise<string[]> {
  const paths: string[] = []
  for await (const entries of session.walk()) paths.push(...entries.map(({ path }) => path.toString()))
  return paths
}

describe('a workspace’s view of a layer', () => {
  it('leaves out the files that say which machine it is, and only those', async () => {
    const layer = new MemoryLayer()
    layer.folder('etc')
    for (const name of ['hostname', 'hosts', 'hosts.allow', 'machine-id', 'resolv.conf']) layer.file(`etc/${name}`, 'x')
    layer.folder('etcetera')
    layer.file('etcetera/hosts', 'x')
    const session = new WorkspaceSession(layer.session())
    expect(await pathsOf(session)).toEqual(['', 'etc', 'etc/hosts.allow', 'etcetera', 'etcetera/hosts'])
    layer.file('etc/hosts', 'changed')
    layer.file('etc/motd', 'new')
    const changed: string[] = []
    for await (const changes of session.changes())
      changed.push(...changes.map((change) => ('removed' in change ? change.removed : change.present.path).toString()))
    expect(changed).toContain('etc/motd')
    expect(changed).not.toContain('etc/hosts')
  })

  it('leaves out all that is not in the one folder that is kept, and what was done to the root', async () => {
    const layer = new MemoryLayer()
    layer.folder('', { mode: 0o700, uid: 5, attributes: [{ name: 'user.x', value: Buffer.from('y') }] })
    for (const path of ['root/b', 'workspace/a', 'workspace/etc/hosts', 'workspace!', 'workspaces/x', 'etc/hosts']) layer.file(path, 'x')
    const session = new WorkspaceSession(layer.session(), 'workspace')
    const entries: LayerEntry[] = []
    for await (const some of session.walk()) entries.push(...some)
    expect(entries.map(({ path }) => path.toString())).toEqual(['', 'workspace', 'workspace/a', 'workspace/etc', 'workspace/etc/hosts'])
    expect(entries[0]).toMatchObject({ mode: 0o755, uid: 0, attributes: [], stamp: { mtimeNs: 0n } })
    layer.folder('', { mode: 0o711 })
    layer.file('root/c', 'new')
    layer.file('workspace/c', 'new')
    layer.remove('workspace/a')
    layer.remove('root/b')
    const changed: string[] = []
    for await (const changes of session.changes())
      changed.push(...changes.map((change) => ('removed' in change ? `-${change.removed}` : `+${change.present.path}`)))
    expect(changed).toEqual(['-workspace/a', '+workspace/c'])
  })
})
