import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { WorkspaceHold } from '@mags/protocol'
import { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { SandboxRoot } from '../drivers/driver.ts'
import type { Image } from '../images/image-catalogue.ts'
import { MemoryLayer } from '../layers/testing/memory-layer.ts'
import { MemoryBlobStore } from './blobs/testing/memory-blob-store.ts'
import type { OpenWorkspace, SavedSandbox } from './local/open-workspace.ts'
import type { RootRequest } from './local/prepare-root.ts'
import { openWorkspaces } from './open-workspaces.ts'
import { ObjectWorkspaceRepository } from './repository/object-workspace-repository.ts'
import type { Workspaces } from './workspaces.ts'

const storage = (digit: string) => digit.repeat(32)
const image = { name: 'debian-12', digest: 'd'.repeat(64) } as Image
const quiet = pino({ level: 'silent' })

/** Layers in memory in the place of those on disks, taken apart as the mounter and the agent do. */
class Disks {
  readonly #layers = new Map<string, MemoryLayer>()
  readonly #mounted = new Map<string, string>()

  of(file: string): MemoryLayer {
    const known = this.#layers.get(file)
    if (known !== undefined) return known
    // A copy of a disk has the id of the original's file system, see ext4(5).
    const id = (path: string) => readFileSync(path).toString('hex', 1024 + 0x68, 1024 + 0x78)
    const original = [...this.#layers].find(([other]) => existsSync(other) && id(other) === id(file))?.[1]
    const layer = new MemoryLayer()
    for (const path of original?.paths() ?? []) layer.put(path, { kind: original?.kindOf(path) ?? 'file', content: original?.parts(path) ?? '' })
    this.#layers.set(file, layer)
    return layer
  }

  at(dir: string): MemoryLayer {
    return this.of(this.#mounted.get(dir) ?? '')
  }

  narrow(layer: MemoryLayer, folder: string, makes: boolean) {
    for (const path of layer.paths()) if (path !== '' && path !== folder && !path.startsWith(`${folder}/`)) layer.remove(path)
    if (makes && layer.kindOf(folder) === undefined) layer.folder(folder)
  }

  readonly mounter = {
    mountImage: async (file: string, dir: string) => void this.#mounted.set(dir, file),
    unmount: async (dir: string) => void this.#mounted.delete(dir),
    resetUpper: async () => 0,
    narrowUpper: async ({ dir, folder, lowerDirs }: { dir: string; folder: string; lowerDirs: readonly string[] }) => {
      this.narrow(this.at(dir), folder, lowerDirs.length > 0)
      return true
    },
    sweepUpper: async () => false,
  }
}

/** What a sandbox with this root begins with. */
function rootOf(disks: Disks, { upperDisk, lowerDisks, scope }: SandboxRoot) {
  const upper = upperDisk === undefined ? new MemoryLayer() : disks.of(upperDisk)
  if (scope !== undefined) disks.narrow(upper, scope, true)
  const sees = [...new Set([upper, ...lowerDisks.map((file) => disks.of(file))].flatMap((layer) => layer.paths()))].filter((path) => path !== '').sort()
  return { upper, sees }
}

describe('workspaces of which one folder is kept', () => {
  let dir: string
  let disks: Disks
  let repository: ObjectWorkspaceRepository
  let workspaces: Workspaces
  let count = 0

  const open = async () => {
    workspaces = await openWorkspaces({
      repository,
      dataDir: dir,
      mounter: disks.mounter,
      openLayer: async (at) => disks.at(at).session(),
      defaultDiskGb: 1 / 64,
      logger: quiet,
    })
  }
  beforeEach(async () => {
    dir = await mkdtemp('/var/tmp/mags-scoped-')
    disks = new Disks()
    repository = new ObjectWorkspaceRepository(new MemoryBlobStore())
    await open()
  })
  afterEach(async () => {
    await workspaces.close()
    await rm(dir, { recursive: true, force: true })
  })

  let fence = 0
  const hold = (digit: string): WorkspaceHold => ({ ...wholeOf(digit), scope: '/workspace' })
  const wholeOf = (digit: string): WorkspaceHold => ({ storageId: storage(digit), fence: ++fence })
  const begin = async (request: Partial<RootRequest> & { workspace: WorkspaceHold }) => {
    const prepared = await workspaces.prepare({ image, diskGb: 1 / 64, stacks: true, onProgress: () => undefined, ...request })
    await prepared.claimed
    const { upper, sees } = rootOf(disks, prepared.root)
    const opened: string[] = []
    const sandbox: SavedSandbox = {
      id: `${++count}`.padStart(12, '0'),
      openLayer: async (scope) => {
        opened.push(scope ?? '')
        return upper.session()
      },
      activity: async () => undefined,
      quiesce: async () => undefined,
      resume: async () => undefined,
      halt: async () => undefined,
    }
    const workspace = await workspaces.opened(request.workspace.storageId, sandbox)
    await workspace.begin()
    const end = async () => {
      await prepared.release()
      await workspace.close()
    }
    return { upper, sees, workspace, sandbox, opened, root: prepared.root, end }
  }
  const save = async (workspace: OpenWorkspace, final = true) => (await workspace.save({ final })).version.version
  const storedPaths = async (digit: string, to: number) =>
    (await workspaces.diff(storage(digit), { from: 0, to, content: false, limit: 1000 })).differences.map(({ path }) => path)

  for (const stacks of [true, false]) {
    describe(stacks ? 'on stacked disks' : 'on single disks', () => {
      it('begin with the folder alone, every time, and every version has no more', async () => {
        const first = await begin({ workspace: hold('a'), stacks })
        expect([first.sees, first.root.scope]).toEqual([['workspace'], 'workspace'])
        for (const path of ['workspace/a', 'workspace/b', 'root/b', 'etc/new']) first.upper.file(path, path)
        expect(await save(first.workspace, false)).toBe(1)
        expect(await storedPaths('a', 1)).toEqual(['/', '/workspace', '/workspace/a', '/workspace/b'])
        first.upper.remove('workspace/b')
        expect(await save(first.workspace)).toBe(2)
        expect(first.opened).toEqual(['workspace'])
        await first.end()
        const second = await begin({ workspace: hold('a'), stacks })
        expect([second.root.upperDisk, second.sees]).toEqual([first.root.upperDisk, ['workspace', 'workspace/a']])
        second.upper.file('root/again', 'x')
        expect((await second.workspace.save({ final: true })).changed).toBe(false)
        await second.end()
        expect(await storedPaths('a', 2)).toEqual(['/', '/workspace', '/workspace/a'])
      })

      it('fork and are a base without what a run has left elsewhere', async () => {
        const first = await begin({ workspace: hold('a'), stacks })
        first.upper.file('workspace/a', 'x')
        first.upper.file('root/b', 'x')
        await save(first.workspace)
        await first.end()
        // By name, into another one, and with the whole kept from then on.
        await workspaces.fork({ storageId: storage('a') }, hold('b'))
        const forked = await begin({ workspace: hold('b'), stacks })
        expect(forked.sees).toEqual(['workspace', 'workspace/a'])
        forked.upper.file('root/c', 'x')
        await save(forked.workspace)
        await forked.end()
        expect(await storedPaths('b', 1)).toEqual(['/', '/workspace', '/workspace/a'])
        const based = await begin({ workspace: hold('c'), base: { storageId: storage('b') }, stacks })
        expect(based.sees).toEqual(['workspace', 'workspace/a'])
        await save(based.workspace)
        await based.end()
        const whole = await begin({ workspace: wholeOf('d'), base: { storageId: storage('b') }, stacks })
        expect(whole.sees).toEqual(['workspace', 'workspace/a'])
        whole.upper.file('root/d', 'x')
        await save(whole.workspace)
        await whole.end()
        expect(await storedPaths('d', 2)).toContain('/root/d')
        // The original goes on as before, above what the others share with it.
        const third = await begin({ workspace: hold('a'), stacks })
        expect(third.sees).toEqual(['workspace', 'workspace/a'])
        third.upper.file('root/e', 'x')
        third.upper.file('workspace/e', 'x')
        await save(third.workspace)
        await third.end()
        expect(await storedPaths('a', 2)).toEqual(['/', '/workspace', '/workspace/a', '/workspace/e'])
        // And a base for a run that keeps nothing.
        const readOnly = await workspaces.prepare({ image, diskGb: 1 / 64, stacks, base: { storageId: storage('a') }, onProgress: () => undefined })
        expect(rootOf(disks, readOnly.root).sees).toEqual(['workspace', 'workspace/a', 'workspace/e'])
        await readOnly.release()
      })

      it('do not take what is no part of the folder from a base', async () => {
        const first = await begin({ workspace: wholeOf('a'), stacks })
        first.upper.file('root/b', 'x')
        await save(first.workspace)
        await first.end()
        await expect(begin({ workspace: hold('b'), base: { storageId: storage('a') }, stacks })).rejects.toMatchObject({ code: 'bad_request' })
        await expect(workspaces.fork({ storageId: storage('a') }, hold('b'))).rejects.toMatchObject({ code: 'bad_request' })
        expect(await workspaces.versions(storage('b'))).toEqual([])
      })
    })
  }

  it('saves what an ended sandbox left with the folder it was held for, also for the next daemon', async () => {
    const first = await begin({ workspace: hold('a') })
    first.upper.file('workspace/a', 'x')
    first.upper.file('root/b', 'x')
    await first.end()
    await workspaces.close()
    await open()
    const saver = async (asked: WorkspaceHold) => {
      expect(asked.scope).toBe('/workspace')
      const left = await begin({ workspace: asked })
      const saved = await left.workspace.save({ final: true })
      await left.end()
      return saved
    }
    await workspaces.serve(saver)
    expect(await workspaces.left()).toEqual([storage('a')])
    expect(await workspaces.saveLeft({ storageId: storage('a'), fence: ++fence })).toMatchObject({ version: { version: 1 } })
    expect(await storedPaths('a', 1)).toEqual(['/', '/workspace', '/workspace/a'])
  })

  it('is not taken for whole when its layers lie under others', async () => {
    const first = await begin({ workspace: wholeOf('a') })
    first.upper.file('root/b', 'x')
    first.upper.file('workspace/a', 'x')
    await save(first.workspace)
    await first.end()
    await workspaces.fork({ storageId: storage('a') }, wholeOf('b'))
    const scoped = await begin({ workspace: hold('b') })
    expect(scoped.sees).toEqual(['workspace', 'workspace/a'])
    await save(scoped.workspace)
    await scoped.end()
    expect(await storedPaths('b', 2)).toEqual(['/', '/workspace', '/workspace/a'])
  })

  it('is a base with the layers that are here, also while the sandbox that saved it is about to go', async () => {
    const first = await begin({ workspace: wholeOf('a') })
    first.upper.file('root/b', 'x')
    await save(first.workspace)
    const asked = workspaces.prepare({ image, diskGb: 1 / 64, stacks: true, base: { storageId: storage('a') }, onProgress: () => undefined })
    await first.end()
    const prepared = await asked
    expect(prepared.root.lowerDisks).toEqual([first.root.upperDisk])
    await prepared.release()
  })

  it('keeps records that name the folder', async () => {
    const first = await begin({ workspace: hold('a') })
    await save(first.workspace)
    await first.end()
    const record = readFileSync(join(dir, 'workspaces', `${storage('a')}.json`), 'utf8')
    expect(JSON.parse(record)).toMatchObject({ scope: '/workspace', open: false })
  })
})
