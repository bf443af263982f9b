import { MagsError } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import type { Sandbox } from './drivers/driver.ts'
import { Host } from './host.ts'
import type { HostParts } from './host-parts.ts'
import { ImageUses } from './images/image-uses.ts'

/** A host with one container that says what is done to it, in which order. */
function hostWith(events: string[], { attached, claimed }: { attached: Promise<void>; claimed: Promise<void> }): Host {
  const died = Promise.withResolvers<{ reason: string }>()
  const sandbox = {
    id: '0123456789ab',
    isolation: 'container',
    died: died.promise,
    shape: { image: 'debian-12', vcpus: 1, memoryMb: 512, diskGb: 2 },
    attach: async () => {
      events.push('attach')
      await attached
      events.push('attached')
    },
    destroy: async () => {
      if (!events.includes('destroy')) events.push('destroy')
      died.resolve({ reason: 'destroyed' })
    },
  } as unknown as Sandbox
  const parts = {
    walls: { container: { driver: { rootAt: 'attach', stacks: true }, pool: { take: async () => ({ sandbox, warm: true }) } }, vm: { missing: 'not here' } },
    default: 'container',
    egress: { of: () => ({}) },
    images: { find: () => ({ record: {} }), get: () => ({ name: 'debian-12', digest: 'sha256:1' }) },
    imageUses: new ImageUses(),
    workspaces: {
      prepare: async () => ({ root: { lowerDisks: [] }, claimed, release: async () => void events.push('released') }),
      opened: async () => ({ begin: async () => undefined, rest: async () => undefined, close: async () => undefined }),
    },
  }
  return new Host(parts as unknown as HostParts)
}

const spec = { image: 'debian-12', isolation: 'auto', vcpus: 1, memoryMb: 512, diskGb: 2, persistent: false, workspace: { storageId: 'w', fence: 1 } } as const

describe('a start whose workspace turns out to be somebody else’s', () => {
  it('ends the sandbox only when nothing is being attached to it any more', async () => {
    const events: string[] = []
    const attached = Promise.withResolvers<void>()
    const claimed = Promise.reject(new MagsError('workspace_fenced', 'taken over'))
    claimed.catch(() => undefined)
    const lease = await hostWith(events, { attached: attached.promise, claimed }).acquire(spec)
    const running = lease.run({ script: 'exit 0', environment: {} }, async () => undefined)
    running.catch(() => undefined)
    await new Promise((resolve) => setImmediate(resolve))
    expect(events).toEqual(['attach'])
    attached.resolve()
    await expect(running).rejects.toMatchObject({ code: 'workspace_fenced' })
    await new Promise((resolve) => setImmediate(resolve))
    expect(events).toEqual(['attach', 'attached', 'destroy', 'released'])
  })
})
