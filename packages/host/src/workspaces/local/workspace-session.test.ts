import { describe, expect, it } from 'vitest'
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
})
