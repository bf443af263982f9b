import { randomBytes } from 'node:crypto'
import { MagsError } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { MemoryBlobStore } from '../blobs/testing/memory-blob-store.ts'
import { ObjectWorkspaceRepository } from './object-workspace-repository.ts'
import type { Manifest, WorkspaceRepository } from './repository.ts'
import { SteppedActor } from './testing/stepped-store.ts'

const image = { name: 'debian-12', digest: 'sha256:1234' }
const why = { reason: 'sync', uploadedBytes: 5 } as const

/** A version that needs these packs; `entryCount` tells it from others. */
const manifestOf = (packs: readonly string[], entryCount = 1): Manifest => {
  const sorted = [...new Set(packs)].sort()
  return {
    image,
    sizeBytes: 10,
    entryCount,
    packs: sorted,
    segments: sorted.slice(0, 1).map((pack) => ({ pack, offset: 0, lengthBytes: 3, rawBytes: 4, sha256: pack })),
  }
}

const packed = async (repository: WorkspaceRepository, text: string) => (await repository.packs.put(Buffer.from(text))).id

describe('versions of a workspace', () => {
  it('are numbered, listed newest first, and read back as they were', async () => {
    const repository = new ObjectWorkspaceRepository(new MemoryBlobStore())
    expect(await repository.versions('w1')).toEqual([])
    let claim = await repository.claim('w1', 3)
    expect(claim).toEqual({ storageId: 'w1', fence: 3, version: 0 })
    const manifests = []
    for (const text of ['one', 'two', 'three']) {
      const manifest = manifestOf([await packed(repository, text), await packed(repository, 'same')], manifests.length)
      manifests.push(manifest)
      const done = await repository.commit(claim, manifest, why)
      claim = done.claim
      expect(done.version).toMatchObject({ version: manifests.length, reason: 'sync', uploadedBytes: 5, image })
    }
    expect((await repository.versions('w1')).map(({ version }) => version)).toEqual([3, 2, 1])
    for (const version of [1, 2, 3]) expect((await repository.manifest('w1', version)).manifest).toEqual(manifests[version - 1])
    expect((await repository.manifest('w1')).version.version).toBe(3)
    await expect(repository.manifest('w1', 4)).rejects.toMatchObject({ code: 'not_found' })
  })

  it('are there for another server, which then owns the workspace', async () => {
    const store = new MemoryBlobStore()
    const [first, second] = [new ObjectWorkspaceRepository(store), new ObjectWorkspaceRepository(store)]
    const old = await first.claim('w', 1)
    const saved = await first.commit(old, manifestOf([await packed(first, 'x')]), why)
    expect(await second.claim('w', 2)).toMatchObject({ version: 1 })
    expect(String(await second.packs.get((await second.manifest('w')).manifest.packs[0] ?? ''))).toBe('x')
    await expect(first.commit(saved.claim, manifestOf([await packed(first, 'y')]), why)).rejects.toMatchObject({ code: 'workspace_fenced' })
    for (const fence of [1, 2]) await expect(first.claim('w', fence)).rejects.toMatchObject({ code: 'workspace_fenced' })
    expect(await second.versions('w')).toHaveLength(1)
  })

  it('are kept to the newest 200', async () => {
    const store = new MemoryBlobStore()
    const repository = new ObjectWorkspaceRepository(store)
    const pack = await packed(repository, 'x')
    let claim = await repository.claim('w', 1)
    for (let count = 1; count <= 203; count++) claim = (await repository.commit(claim, manifestOf([pack], count), why)).claim
    const versions = await repository.versions('w')
    expect([versions.length, versions[0]?.version, versions.at(-1)?.version]).toEqual([200, 203, 4])
    expect([...store.objects.keys()].filter((key) => key.includes('/versions/'))).toHaveLength(200)
    await expect(repository.manifest('w', 3)).rejects.toMatchObject({ code: 'not_found' })
  })

  it('are gone after a removal, and their holder is told', async () => {
    const store = new MemoryBlobStore()
    const repository = new ObjectWorkspaceRepository(store)
    const { claim } = await repository.commit(await repository.claim('w', 1), manifestOf([await packed(repository, 'x')]), why)
    await new ObjectWorkspaceRepository(store).remove('w')
    await expect(repository.commit(claim, manifestOf([await packed(repository, 'x')], 2), why)).rejects.toMatchObject({ code: 'workspace_fenced' })
    await repository.remove('w')
    expect([...store.objects.keys()].filter((key) => key.startsWith('workspaces/') && !key.includes('/versions/'))).toEqual([])
    expect(await repository.versions('w')).toEqual([])
  })

  it('are not made of packs that are not there', async () => {
    const repository = new ObjectWorkspaceRepository(new MemoryBlobStore())
    const missing = randomBytes(32).toString('hex')
    await expect(repository.commit(await repository.claim('w', 1), manifestOf([missing]), why)).rejects.toMatchObject({
      code: 'workspace_damaged',
      message: expect.stringContaining(missing),
    })
  })

  it('are refused when they could not be read again', async () => {
    const repository = new ObjectWorkspaceRepository(new MemoryBlobStore())
    const claim = await repository.claim('w', 1)
    await expect(repository.commit(claim, { ...manifestOf([]), sizeBytes: -1 }, why)).rejects.toMatchObject({ code: 'internal' })
    await expect(repository.claim('../w', 1)).rejects.toMatchObject({ code: 'internal' })
    await expect(repository.claim('w', 0)).rejects.toMatchObject({ code: 'internal' })
  })
})

describe('packs', () => {
  it('are stored once, whoever puts them', async () => {
    const store = new MemoryBlobStore()
    const [first, second] = [new ObjectWorkspaceRepository(store), new ObjectWorkspaceRepository(store)]
    const bytes = randomBytes(1000)
    const both = await Promise.all([first.packs.put(bytes), first.packs.put(bytes)])
    expect(both.map(({ uploadedBytes }) => uploadedBytes).sort()).toEqual([0, 1000])
    expect((await second.packs.put(bytes)).uploadedBytes).toBe(0)
    const asked = store.operations.length
    expect((await second.packs.put(bytes)).uploadedBytes).toBe(0)
    expect(store.operations.length).toBe(asked)
    expect([...store.objects.keys()].filter((key) => key.startsWith('packs/'))).toHaveLength(1)
  })

  it('name themselves when they are missing or another', async () => {
    const store = new MemoryBlobStore()
    const repository = new ObjectWorkspaceRepository(store)
    const id = await packed(repository, 'contents')
    const [key] = [...store.objects.keys()]
    for (const bytes of [Buffer.alloc(0), Buffer.from('content'), Buffer.from('contentz')]) {
      store.objects.set(key ?? '', { bytes, modifiedAt: new Date() })
      await expect(repository.packs.get(id)).rejects.toMatchObject({ code: 'workspace_damaged', message: expect.stringContaining(id) })
    }
    store.objects.clear()
    await expect(repository.packs.get(id)).rejects.toMatchObject({ code: 'workspace_damaged', message: expect.stringContaining('missing') })
  })

  it('that were cut short are not relied on, and read from a good copy', async () => {
    const store = new MemoryBlobStore()
    const id = await packed(new ObjectWorkspaceRepository(store), 'contents')
    const [key] = [...store.objects.keys()]
    store.objects.set(key ?? '', { bytes: Buffer.from('cont'), modifiedAt: new Date() })
    const repository = new ObjectWorkspaceRepository(store)
    expect((await repository.packs.put(Buffer.from('contents'))).uploadedBytes).toBe(8)
    expect(String(await new ObjectWorkspaceRepository(store).packs.get(id))).toBe('contents')
  })
})

const unavailable = () => new MagsError('object_store_unavailable', 'no answer')

describe('a store that fails', () => {
  /** Runs claim and commit with a fault at the nth put; tells whether there was one. */
  const run = async (kind: 'failPuts' | 'loseAnswers', place: number) => {
    const store = new MemoryBlobStore()
    const repository = new ObjectWorkspaceRepository(store)
    const pack = await packed(repository, 'x')
    let puts = 0
    let faults = 0
    const hook = ({ kind: what }: { kind: string }) => {
      if (what === 'put' && puts++ === place) {
        faults++
        throw unavailable()
      }
    }
    if (kind === 'failPuts') store.before = hook
    else store.after = hook
    /** As a caller does: the same call again. */
    const again = async <T>(call: () => Promise<T>): Promise<T> => {
      for (;;) {
        try {
          return await call()
        } catch (error) {
          if (!(error instanceof MagsError && error.code === 'object_store_unavailable')) throw error
        }
      }
    }
    const claim = await again(() => repository.claim('w', 1))
    const first = await again(() => repository.commit(claim, manifestOf([pack], 1), why))
    const second = await again(() => repository.commit(first.claim, manifestOf([pack], 2), why))
    expect([first.version.version, second.version.version]).toEqual([1, 2])
    const versions = await new ObjectWorkspaceRepository(store).versions('w')
    expect(versions.map(({ version, entryCount }) => [version, entryCount])).toEqual([
      [2, 2],
      [1, 1],
    ])
    return faults
  }

  it('at any put is asked again, and nothing is saved twice', async () => {
    for (const kind of ['failPuts', 'loseAnswers'] as const) {
      let place = 0
      while ((await run(kind, place)) > 0) place++
      expect(place).toBe(5)
    }
  })

  it('and loses every answer for a while is not taken for another holder', async () => {
    const store = new MemoryBlobStore()
    const repository = new ObjectWorkspaceRepository(store)
    const pack = await packed(repository, 'x')
    // The put takes effect, and the look at it afterwards fails, too.
    let broken = true
    store.after = ({ kind, key }) => {
      if (broken && key.endsWith('/head') && kind === 'put') store.before = () => Promise.reject(unavailable())
      if (broken && kind === 'put' && key.endsWith('/head')) throw unavailable()
    }
    await expect(repository.claim('w', 7)).rejects.toMatchObject({ code: 'object_store_unavailable' })
    store.before = undefined
    const claim = await repository.claim('w', 7)
    await expect(repository.commit(claim, manifestOf([pack], 1), why)).rejects.toMatchObject({ code: 'object_store_unavailable' })
    store.before = undefined
    broken = false
    // The job went on meanwhile: what is saved now is another tree, after the one that got there unheard.
    const saved = await repository.commit(claim, manifestOf([pack], 2), why)
    expect(saved.version.version).toBe(2)
    expect((await repository.versions('w')).map(({ entryCount }) => entryCount)).toEqual([2, 1])
    await expect(repository.claim('w', 7)).rejects.toMatchObject({ code: 'workspace_fenced' })
  })
})

describe('two holders', () => {
  /** Holder 1 saves twice, holder 2 takes over and saves twice; `schedule` says who goes on, for each operation. */
  const play = async (schedule: Iterable<number>, lost?: { actor: number; place: number }) => {
    const objects: MemoryBlobStore['objects'] = new Map()
    const pack = (await new ObjectWorkspaceRepository(new MemoryBlobStore({ objects })).packs.put(Buffer.from('x'))).id
    const acknowledged: number[][] = [[], []]
    const failures: unknown[][] = [[], []]
    const actors = [0, 1].map(() => new SteppedActor(objects, Date.now))
    const counts = [0, 0]
    for (const [index, actor] of actors.entries()) {
      if (lost?.actor === index) actor.loseAnswer(lost.place, unavailable, ({ kind }) => kind === 'put')
      await actor.start(async () => {
        try {
          const repository = new ObjectWorkspaceRepository(actor.store)
          let claim = await repository.claim('w', index + 1)
          for (const turn of [1, 2]) {
            claim = (await repository.commit(claim, manifestOf([pack], (index + 1) * 10 + turn), why)).claim
            acknowledged[index]?.push((index + 1) * 10 + turn)
          }
        } catch (error) {
          failures[index]?.push(error)
        }
      })
    }
    const go = async (index: number) => {
      if (await actors[index]?.step()) counts[index] = (counts[index] ?? 0) + 1
    }
    for (const index of schedule) await go(index)
    for (const index of [0, 1]) while (!actors[index]?.finished) await go(index)

    const repository = new ObjectWorkspaceRepository(new MemoryBlobStore({ objects }))
    const versions = (await repository.versions('w')).toReversed()
    expect(versions.map(({ version }) => version)).toEqual(versions.map((_, index) => index + 1))
    const listed = versions.map(({ entryCount }) => entryCount)
    for (const mark of acknowledged.flat()) expect(listed.filter((candidate) => candidate === mark)).toHaveLength(1)
    // Nothing of the first holder after something of the second.
    expect(listed).toEqual(listed.toSorted((a, b) => a - b))
    for (const { version } of versions) await repository.manifest('w', version)
    if (!lost) {
      expect(failures[1]).toEqual([])
      for (const error of failures[0] ?? []) expect(error).toMatchObject({ code: 'workspace_fenced' })
      expect(listed.length).toBe(acknowledged.flat().length)
    }
    return { counts, acknowledged }
  }
  const turns = (actor: number, count: number) => Array.from({ length: count }, () => actor)

  it('never overwrite each other, wherever one is paused', async () => {
    const { counts } = await play([])
    const [most = 0, others = 0] = counts.map((count) => count + 3)
    const outcomes = new Set<number>()
    for (let first = 0; first <= most; first++) {
      for (let second = 0; second <= others; second++) {
        for (let third = 0; third <= most - first; third += 3) {
          const { acknowledged } = await play([...turns(0, first), ...turns(1, second), ...turns(0, third), ...turns(1, 99), ...turns(0, 99)])
          outcomes.add(acknowledged[0]?.length ?? 0)
        }
      }
    }
    expect([...outcomes].sort()).toEqual([0, 1, 2])
  }, 120_000)

  it('never overwrite each other when answers are lost, too', async () => {
    for (const actor of [0, 1]) {
      for (let place = 0; place < 5; place++) {
        for (let first = 0; first < 12; first++) await play([...turns(0, first), ...turns(1, 99)], { actor, place })
      }
    }
  }, 120_000)
})
