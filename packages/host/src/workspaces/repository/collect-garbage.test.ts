import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { MemoryBlobStore } from '../blobs/testing/memory-blob-store.ts'
import { ObjectWorkspaceRepository } from './object-workspace-repository.ts'
import type { Manifest, WorkspaceRepository } from './repository.ts'
import { SteppedActor } from './testing/stepped-store.ts'

const hour = 3_600_000
const graceMs = 6 * hour
const why = { reason: 'sync', uploadedBytes: 0 } as const
const manifestOf = (packs: readonly string[]): Manifest => ({
  image: { name: 'i', digest: 'd' },
  sizeBytes: 1,
  entryCount: 1,
  segments: [],
  packs: [...new Set(packs)].sort(),
})
const packed = async (repository: WorkspaceRepository, text: string) => (await repository.packs.put(Buffer.from(text))).id

/** A store with a clock that stands still unless told. */
const ground = () => {
  const clock = { nowMs: Date.parse('2026-01-01T00:00:00Z') }
  const now = () => clock.nowMs
  const store = new MemoryBlobStore({ now })
  const packKeys = () => [...store.objects.keys()].filter((key) => key.startsWith('packs/'))
  return { clock, now, store, packKeys, open: (through = store) => new ObjectWorkspaceRepository(through, { graceMs, now }) }
}

describe('the collection', () => {
  it('takes packs of removed workspaces away, and no others', async () => {
    const { clock, packKeys, open } = ground()
    const repository = open()
    for (const name of ['kept', 'gone'])
      await repository.commit(await repository.claim(name, 1), manifestOf([await packed(repository, name), await packed(repository, 'both')]), why)
    await packed(repository, 'of nobody')
    expect(packKeys()).toHaveLength(4)
    await repository.remove('gone')
    expect(await repository.collectGarbage()).toEqual({ deletedPacks: 0, freedBytes: 0 })
    clock.nowMs += graceMs
    expect((await repository.collectGarbage()).deletedPacks).toBe(0)
    clock.nowMs += graceMs / 2
    expect(await open().collectGarbage()).toEqual({ deletedPacks: 2, freedBytes: 'gone'.length + 'of nobody'.length })
    expect(packKeys()).toHaveLength(2)
    const { manifest } = await open().manifest('kept')
    expect((await Promise.all(manifest.packs.map((id) => open().packs.get(id)))).map(String).sort()).toEqual(['both', 'kept'])
    expect(await repository.collectGarbage()).toEqual({ deletedPacks: 0, freedBytes: 0 })
  })

  it('leaves alone what a later version needs again', async () => {
    const { clock, packKeys, open } = ground()
    const writer = open()
    const id = await packed(writer, 'x')
    clock.nowMs += graceMs
    // Known to be there an hour ago; condemned meanwhile; committed after that.
    await open().packs.put(Buffer.from('x'))
    const other = open()
    await other.packs.put(Buffer.from('x'))
    await open().collectGarbage()
    await other.commit(await other.claim('w', 1), manifestOf([id]), why)
    clock.nowMs += graceMs
    await open().collectGarbage()
    clock.nowMs += graceMs
    await open().collectGarbage()
    expect(packKeys()).toHaveLength(1)
    expect(String(await open().packs.get(id))).toBe('x')
  })

  it('does not let a writer rely on what is condemned', async () => {
    const { clock, packKeys, open } = ground()
    const id = await packed(open(), 'x')
    clock.nowMs += graceMs
    await open().collectGarbage()
    const writer = open()
    expect((await writer.packs.put(Buffer.from('x'))).uploadedBytes).toBe(1)
    expect(packKeys()).toHaveLength(2)
    clock.nowMs += graceMs / 2
    expect((await open().collectGarbage()).deletedPacks).toBe(1)
    await writer.commit(await writer.claim('w', 1), manifestOf([id]), why)
    expect(String(await open().packs.get(id))).toBe('x')
  })

  it('keeps the packs of a fork whose parent is removed meanwhile', async () => {
    const { clock, open } = ground()
    const repository = open()
    const id = await packed(repository, 'x')
    await repository.commit(await repository.claim('parent', 1), manifestOf([id]), why)
    clock.nowMs += 10 * graceMs
    const forker = open()
    const { manifest } = await forker.manifest('parent')
    await repository.remove('parent')
    await open().collectGarbage()
    clock.nowMs += graceMs / 2 - 1
    await open().collectGarbage()
    await forker.commit(await forker.claim('child', 1), manifest, why)
    for (let round = 0; round < 3; round++) {
      clock.nowMs += graceMs
      await open().collectGarbage()
    }
    expect(String(await open().packs.get(id))).toBe('x')
  })

  it('does nothing while another one is at it, and takes over when that one died', async () => {
    const { clock, now, store, open } = ground()
    await packed(open(), 'x')
    clock.nowMs += graceMs
    await open().collectGarbage()
    clock.nowMs += graceMs
    const paused = new SteppedActor(store.objects, now)
    await paused.start(async () => void (await new ObjectWorkspaceRepository(paused.store, { graceMs, now }).collectGarbage()))
    for (let count = 0; count < 3; count++) await paused.step()
    expect((await open().collectGarbage()).deletedPacks).toBe(0)
    clock.nowMs += 2 * hour
    expect((await open().collectGarbage()).deletedPacks).toBe(1)
    while (await paused.step());
  })

  it('removes versions no head names, left-over checks, and nothing that is young', async () => {
    const { clock, store, open } = ground()
    const repository = open()
    const { claim } = await repository.commit(await repository.claim('w', 1), manifestOf([]), why)
    // A crash between the version and the head.
    store.before = ({ kind, key }) => {
      if (kind === 'put' && key.endsWith('/head')) throw new Error('crash')
    }
    await expect(repository.commit(claim, { ...manifestOf([]), entryCount: 2 }, why)).rejects.toThrow('crash')
    store.before = undefined
    await store.put('checks/left', Buffer.from('x'))
    const versions = () => [...store.objects.keys()].filter((key) => key.includes('/versions/'))
    await open().collectGarbage()
    expect(versions()).toHaveLength(2)
    clock.nowMs += 25 * hour
    await open().collectGarbage()
    expect(versions()).toHaveLength(1)
    expect([...store.objects.keys()]).not.toContain('checks/left')
    expect(await open().versions('w')).toHaveLength(1)
  })

  it('does not let a commit name a version that was taken away while it waited for the head', async () => {
    for (const rounds of [1, 2, 3, 4, 5]) {
      const { clock, now, store, open } = ground()
      const actor = new SteppedActor(store.objects, now)
      let failure: unknown
      await actor.start(async () => {
        const repository = new ObjectWorkspaceRepository(actor.store, { graceMs, now })
        const id = await packed(repository, 'x')
        await repository.commit(await repository.claim('w', 1), manifestOf([id]), why).catch((error: unknown) => {
          failure = error
        })
      })
      while (![...store.objects.keys()].some((key) => key.includes('/versions/'))) await actor.step()
      for (let round = 0; round < rounds; round++) {
        clock.nowMs += graceMs
        await open().collectGarbage()
      }
      while (await actor.step());
      if (rounds < 3) {
        const { manifest } = await open().manifest('w')
        expect(String(await open().packs.get(manifest.packs[0] ?? ''))).toBe('x')
      } else {
        // After so long its packs are gone, too: refused instead of saved with holes.
        expect(failure).toMatchObject({ code: 'workspace_damaged' })
        expect(await open().versions('w')).toEqual([])
      }
    }
  })

  it('deletes nothing when a head or a version cannot be read, and says which', async () => {
    const { clock, store, packKeys, open } = ground()
    const repository = open()
    await repository.commit(await repository.claim('w', 1), manifestOf([await packed(repository, 'x')]), why)
    await packed(repository, 'y')
    clock.nowMs += graceMs
    await open().collectGarbage()
    clock.nowMs += graceMs
    for (const key of [...store.objects.keys()].filter((name) => name.startsWith('workspaces/'))) {
      const whole = store.objects.get(key)
      if (!whole) throw new Error('no such object')
      store.objects.set(key, { ...whole, bytes: whole.bytes.subarray(1) })
      await expect(open().collectGarbage()).rejects.toMatchObject({ code: 'workspace_damaged', details: { object: key } })
      store.objects.set(key, whole)
    }
    expect(packKeys()).toHaveLength(2)
    expect((await open().collectGarbage()).deletedPacks).toBe(1)
  })

  it('never takes what a version needs, whoever is paused and however long', async () => {
    const actions = fc.oneof(
      fc.record({ kind: fc.constant('save' as const), workspace: fc.nat(2), packs: fc.array(fc.nat(5), { minLength: 1, maxLength: 3 }) }),
      fc.record({ kind: fc.constant('fork' as const), workspace: fc.nat(2), from: fc.nat(2) }),
      fc.record({ kind: fc.constant('remove' as const), workspace: fc.nat(2) }),
      fc.record({ kind: fc.constant('collect' as const) }),
    )
    const scripts = fc.array(fc.array(actions, { minLength: 2, maxLength: 8 }), { minLength: 2, maxLength: 4 })
    const schedule = fc.array(
      fc.record({ actor: fc.nat(3), steps: fc.integer({ min: 1, max: 12 }), passMs: fc.constantFrom(0, 0, hour / 4, hour, 3 * hour, 7 * hour) }),
      { minLength: 20, maxLength: 120 },
    )
    let deleted = 0
    let saved = 0
    await fc.assert(
      fc.asyncProperty(scripts, schedule, async (scriptOfActors, turns) => {
        const { clock, now, store, open } = ground()
        let fence = 0
        const unexpected: unknown[] = []
        const actors = scriptOfActors.map(() => new SteppedActor(store.objects, now))
        for (const [index, actor] of actors.entries()) {
          await actor.start(async () => {
            const repository = new ObjectWorkspaceRepository(actor.store, { graceMs, now })
            const save = async (workspace: number, manifest: Manifest) => {
              await repository.commit(await repository.claim(`w${workspace}`, ++fence), manifest, why)
              saved++
            }
            for (const action of scriptOfActors[index] ?? []) {
              try {
                if (action.kind === 'save') {
                  const ids = []
                  for (const pack of action.packs) ids.push(await packed(repository, `pack ${pack}`))
                  await save(action.workspace, manifestOf(ids))
                } else if (action.kind === 'fork') await save(action.workspace, (await repository.manifest(`w${action.from}`)).manifest)
                else if (action.kind === 'remove') await repository.remove(`w${action.workspace}`)
                else deleted += (await repository.collectGarbage()).deletedPacks
              } catch (error) {
                const { code } = error as { code?: string }
                if (code !== 'workspace_fenced' && code !== 'not_found' && code !== 'workspace_damaged') unexpected.push(error)
              }
            }
          })
        }
        for (const { actor, steps, passMs } of turns) {
          clock.nowMs += passMs
          for (let count = 0; count < steps; count++) await actors[actor % actors.length]?.step()
        }
        for (const actor of actors) while (await actor.step());
        expect(unexpected).toEqual([])
        const reader = open()
        for (let workspace = 0; workspace < 3; workspace++) {
          for (const { version } of await reader.versions(`w${workspace}`)) {
            const { manifest } = await reader.manifest(`w${workspace}`, version)
            for (const id of manifest.packs) await reader.packs.get(id)
          }
        }
      }),
      { numRuns: Number(process.env.MAGS_TEST_RUNS ?? 300) },
    )
    // The test is worth something only when there is something to collect.
    expect(deleted).toBeGreaterThan(10)
    expect(saved).toBeGreaterThan(100)
  }, 120_000)
})

describe('what the collectors tell each other', () => {
  it('is refused when it is not what was written', async () => {
    const { store, open } = ground()
    await open().collectGarbage()
    const state = store.objects.get('collector/state')
    if (!state) throw new Error('there is no state')
    for (const bytes of [Buffer.alloc(0), randomBytes(40), state.bytes.subarray(0, -1), Buffer.concat([state.bytes, Buffer.from('x')])]) {
      store.objects.set('collector/state', { ...state, bytes })
      await expect(open().collectGarbage()).rejects.toMatchObject({ code: 'workspace_damaged', details: { object: 'collector/state' } })
    }
  })
})
