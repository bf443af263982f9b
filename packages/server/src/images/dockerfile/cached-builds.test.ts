import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MagsError, type SandboxLease, type SandboxSpec } from '@mags/protocol'
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { databaseKinds, lacksDatabase, useTestDatabases } from '../../../../../tests/kit/test-databases.ts'
import { openDatabase } from '../../state/database.ts'
import { GroupCommit } from '../../state/group-commit.ts'
import { FakeHost } from '../../testing/fake-host.ts'
import type { FakeSandbox } from '../../testing/fake-sandbox.ts'
import { BuildCache } from '../cache/build-cache.ts'
import { BuildCacheStore } from '../cache/store.ts'
import { type EntryOf, tarOf } from '../testing/tar-of.ts'
import { buildDockerfile } from './build-dockerfile.ts'
import { ContextArchive } from './context-archive.ts'

/** Notes what RUN runs, and what is copied; has a tar that packs. */
class RunningHost extends FakeHost {
  readonly ran: string[] = []

  override lease(spec: SandboxSpec, acquireMs = 0, source?: FakeSandbox): SandboxLease {
    const lease = super.lease(spec, acquireMs, source)
    const run: SandboxLease['run'] = async (script, sink) => {
      const sandbox = (await lease.run(script, sink)) as FakeSandbox
      const exec = sandbox.exec.bind(sandbox)
      sandbox.exec = (request, ...rest) => {
        const [, , words = '', name] = request.command
        if (name !== 'sh' && request.command[0] !== 'tar' && !words.startsWith('cd / ||')) this.ran.push(words || request.command.join(' '))
        if (name === 'sh' && request.stdin !== undefined) this.ran.push('copy')
        if (request.command[0] === 'tar')
          return this.#pack(sandbox, request.command.slice(6), rest[0]).then(() => exec({ ...request, command: ['exit 0'] }, ...rest))
        return exec(request, ...rest)
      }
      return sandbox
    }
    return { ...lease, run }
  }

  async #pack({ files }: FakeSandbox, paths: readonly string[], onOutput: Parameters<FakeSandbox['exec']>[1]): Promise<void> {
    const packed = paths.map((path) => [path, files.tree.get(path.slice(1))?.content.toString() ?? ''])
    await onOutput('stdout', await tarOf(Object.fromEntries(packed)))
  }
}

interface BuildOptions {
  readonly files?: Readonly<Record<string, EntryOf>>
  readonly buildArgs?: Readonly<Record<string, string>>
  readonly accountId?: string
  readonly fresh?: boolean
  readonly abort?: AbortSignal
}

const daysMs = 24 * 3600 * 1000

describe.each(databaseKinds)('builds with a cache on %s', (kind) => {
  describe.skipIf(lacksDatabase(kind))('buildDockerfile', () => {
    const newDatabase = useTestDatabases(kind)

    async function open({ maxBytes = 2 ** 20 } = {}) {
      const config = newDatabase()
      const database = await openDatabase(config)
      const store = new BuildCacheStore(database, new GroupCommit(database, config.kind))
      const host = new RunningHost()
      const now = { ms: Date.parse('2026-01-01T00:00:00Z') }
      const newCache = (bytes = maxBytes) =>
        new BuildCache({ cacheStore: store, host, clock: () => now.ms, logger: pino({ level: 'silent' }), maxBytes: bytes })
      const world = { host, store, database, now, cache: newCache(), newCache }
      /** Builds, and says what was run for it. */
      const build = async (dockerfile: string, options: BuildOptions = {}) => {
        const folder = mkdtempSync(join(tmpdir(), 'mags-build-'))
        const said: string[] = []
        host.ran.length = 0
        try {
          writeFileSync(join(folder, 'context.tar'), await tarOf({ Dockerfile: dockerfile, ...options.files }))
          const context = await ContextArchive.open(join(folder, 'context.tar'))
          const progress = { say: (words: string) => void said.push(words), output: async () => undefined }
          const { buildArgs = {}, accountId = 'me', fresh = false, abort = new AbortController().signal } = options
          await using cache = world.cache.open(accountId, { fresh })
          const image = await buildDockerfile({ host, name: 'mine', context, dockerfile: 'Dockerfile', buildArgs, cache, progress, abort })
          return { ran: [...host.ran], said, image }
        } finally {
          rmSync(folder, { recursive: true })
          expect(host.sandboxes.size).toBe(0)
          expect(await host.workspaces.left()).toEqual([])
          await world.cache.tend()
        }
      }
      const storages = async () => (await store.listKept()).map(({ storageId }) => storageId)
      return { ...world, world, build, storages, [Symbol.asyncDispose]: () => database.destroy() }
    }

    it('run nothing a second time, and make no second image', async () => {
      await using mags = await open()
      const dockerfile = 'FROM alpine\nENV A=1\nRUN write /a 1\nLABEL x=y\nCOPY x /x\nWORKDIR /w\nRUN write /b 2\nCMD ["c"]'
      const first = await mags.build(dockerfile, { files: { x: 'X' } })
      expect(first.ran).toEqual(['write /a 1', 'copy', 'write /b 2'])
      const second = await mags.build(dockerfile, { files: { x: 'X' } })
      expect(second.ran).toEqual([])
      expect(second.said).toEqual([
        'stage 1: FROM alpine',
        'line 2: ENV A=1',
        'line 3: RUN write /a 1 (from the cache)',
        ...['line 4: LABEL x=y', 'LABEL means nothing here and is left out', 'line 5: COPY x /x (from the cache)', 'line 6: WORKDIR /w'],
        ...['line 7: RUN write /b 2 (from the cache)', 'line 8: CMD ["c"]', 'CMD is noted; jobs run their own script'],
        'image mine is the same as before',
      ])
      expect(second.image).toEqual(first.image)
      await mags.host.images.remove('mine')
      const third = await mags.build(dockerfile, { files: { x: 'X' } })
      expect(third.ran).toEqual([])
      expect(third.said.at(-1)).toBe('reading the image out of the sandbox')
      expect(mags.host.acquired.at(-1)).toMatchObject({ image: 'alpine', base: { version: 2 } })
      expect(mags.host.acquired.at(-1)?.workspace).toBeUndefined()
    })

    it('run from the line on that was changed, with the files of before it', async () => {
      await using mags = await open()
      await mags.build('FROM alpine\nRUN write /a 1\nRUN write /b 2\nRUN write /c 3')
      const { ran } = await mags.build('FROM alpine\nRUN write /a 1\nRUN write /b 2\nRUN read /b\nRUN write /d 4')
      expect(ran).toEqual(['read /b', 'write /d 4'])
      expect((await mags.build('FROM alpine\nRUN write /a 1\nRUN write /b 2\nRUN read /b\nRUN write /d 5')).ran).toEqual(['write /d 5'])
      expect((await mags.build('FROM alpine\nRUN write /a 1\nRUN write /b 2\nRUN write /c 3')).ran).toEqual([])
    })

    it.each<[string, string, string, BuildOptions, BuildOptions, string]>([
      ['the base', 'FROM alpine\nRUN a', 'FROM debian-12\nRUN a', {}, {}, 'a'],
      ['the command', 'FROM alpine\nRUN a', 'FROM alpine\nRUN ["a"]', {}, {}, 'a'],
      ['the environment', 'FROM alpine\nENV A=1\nRUN a', 'FROM alpine\nENV A=2\nRUN a', {}, {}, 'a'],
      ['an argument that was set', 'FROM alpine\nARG A\nRUN a', 'FROM alpine\nARG A\nRUN a', {}, { buildArgs: { A: '1' } }, 'a'],
      ['the folder', 'FROM alpine\nRUN a', 'FROM alpine\nWORKDIR /w\nRUN a', {}, {}, 'a'],
      ['the user', 'FROM alpine\nRUN a', 'FROM alpine\nUSER 0\nRUN a', {}, {}, 'a'],
      ['the shell', 'FROM alpine\nRUN a', 'FROM alpine\nSHELL ["/bin/sh", "-ec"]\nRUN a', {}, {}, 'a'],
      ['a file that is written', 'FROM alpine\nCOPY <<f /x\n1\nf\nRUN a', 'FROM alpine\nCOPY <<f /x\n2\nf\nRUN a', {}, {}, 'a'],
      ['a content', 'FROM alpine\nCOPY x /x', 'FROM alpine\nCOPY x /x', { files: { x: '1' } }, { files: { x: '2' } }, 'copy'],
      ['a content below', 'FROM alpine\nCOPY d /x', 'FROM alpine\nCOPY d /x', { files: { 'd/e/x': '1' } }, { files: { 'd/e/x': '2' } }, 'copy'],
      ['a name below', 'FROM alpine\nCOPY d /x', 'FROM alpine\nCOPY d /x', { files: { 'd/x': '1' } }, { files: { 'd/y': '1' } }, 'copy'],
      ['what a pattern means', 'FROM alpine\nCOPY x* /d/', 'FROM alpine\nCOPY x* /d/', { files: { x: '1' } }, { files: { x: '1', xy: '' } }, 'copy'],
      ['an owner', 'FROM alpine\nCOPY x /x', 'FROM alpine\nCOPY --chown=1 x /x', { files: { x: '1' } }, { files: { x: '1' } }, 'copy'],
      ['where to', 'FROM alpine\nCOPY x /x', 'FROM alpine\nCOPY x /x/', { files: { x: '1' } }, { files: { x: '1' } }, 'copy'],
    ])('depend on %s', async (_what, before, after, options, others, ran) => {
      await using mags = await open()
      expect((await mags.build(before, options)).ran).toContain(ran)
      expect((await mags.build(after, others)).ran).toContain(ran)
    })

    it.each<[string, string, string, BuildOptions, BuildOptions]>([
      ['comments and the form', 'FROM alpine\nRUN a b', '# x\nFROM alpine\n\nRUN \\\n a b', {}, {}],
      ['what is noted only', 'FROM alpine\nRUN a', 'FROM alpine\nLABEL a=b\nEXPOSE 1\nRUN a\nCMD x', {}, {}],
      ['the order of variables', 'FROM alpine\nENV A=1\nENV B=2\nRUN a', 'FROM alpine\nENV B=2 A=1\nRUN a', {}, {}],
      ['arguments that nobody declares', 'FROM alpine\nRUN a', 'FROM alpine\nRUN a', {}, { buildArgs: { A: '1' } }],
      ['files that are not copied', 'FROM alpine\nCOPY x /x', 'FROM alpine\nCOPY x /x', { files: { x: '1' } }, { files: { x: '1', y: '' } }],
      ['the environment of a copy', 'FROM alpine\nCOPY x /x', 'FROM alpine\nENV A=1\nUSER 0\nCOPY --link x /x', { files: { x: '1' } }, { files: { x: '1' } }],
    ])('do not depend on %s', async (_what, before, after, options, others) => {
      await using mags = await open()
      expect((await mags.build(before, options)).ran).toHaveLength(1)
      expect((await mags.build(after, others)).ran).toEqual([])
    })

    it('go on in stages, and begin no sandbox for one that has all it needs', async () => {
      await using mags = await open()
      const dockerfile = 'FROM alpine AS one\nRUN write /x 1\nFROM one AS two\nRUN write /y 2\nFROM alpine\nCOPY --from=two /x /y /\nRUN write /z '
      expect((await mags.build(`${dockerfile}3`)).ran).toEqual(['write /x 1', 'write /y 2', 'copy', 'write /z 3'])
      const before = mags.host.acquired.length
      expect((await mags.build(`${dockerfile}4`)).ran).toEqual(['write /z 4'])
      expect(mags.host.acquired.length - before).toBe(1)
      const changed = dockerfile.replace('write /y 2', 'write /y 3')
      expect((await mags.build(`${changed}4`)).ran).toEqual(['write /y 3', 'copy', 'write /z 4'])
      const ofImage = (image: string) => `FROM alpine\nCOPY --from=${image} etc /etc`
      await expect(mags.build(ofImage('alpine'))).rejects.toThrow('"etc" is not in image alpine')
    })

    it('never use what another account has built', async () => {
      await using mags = await open()
      await mags.build('FROM alpine\nRUN a')
      expect((await mags.build('FROM alpine\nRUN a', { accountId: 'you' })).ran).toEqual(['a'])
      expect((await mags.build('FROM alpine\nRUN a', { accountId: 'you' })).ran).toEqual([])
    })

    it('run everything anew when they are told to, and keep that instead', async () => {
      await using mags = await open()
      await mags.build('FROM alpine\nRUN write /a 1\nRUN b')
      const [old] = await mags.storages()
      expect((await mags.build('FROM alpine\nRUN write /a 1\nRUN b', { fresh: true })).ran).toEqual(['write /a 1', 'b'])
      expect(mags.host.workspaces.removed).toEqual([old])
      expect((await mags.build('FROM alpine\nRUN write /a 1\nRUN b')).ran).toEqual([])
    })

    it('go on from the last step that worked when one failed or was cancelled', async () => {
      await using mags = await open()
      await expect(mags.build('FROM alpine\nRUN write /a 1\nRUN write /b 2\nexit 3')).rejects.toThrow()
      await expect(mags.build('FROM alpine\nRUN write /a 1\nRUN exit 3')).rejects.toThrow('exit code 3')
      expect((await mags.build('FROM alpine\nRUN write /a 1\nRUN read /a')).ran).toEqual(['read /a'])
      const abort = new AbortController()
      const cancelled = mags.build('FROM alpine\nRUN write /c 1\nRUN stubborn', { abort: abort.signal })
      mags.host.workspaces.beforeSave = () => queueMicrotask(() => setImmediate(() => abort.abort(new MagsError('bad_request', 'cancelled'))))
      await expect(cancelled).rejects.toThrow('cancelled')
      await expect(mags.build('FROM alpine\nRUN exit 4')).rejects.toThrow('exit code 4')
      for (const { steps } of await mags.store.listKept()) expect(steps).toBeGreaterThan(0)
    })

    it('begin again without what was lost', async () => {
      await using mags = await open()
      await mags.build('FROM alpine\nRUN write /a 1\nRUN write /b 2')
      const [lost = ''] = await mags.storages()
      await mags.host.workspaces.remove(lost)
      const { ran, said } = await mags.build('FROM alpine\nRUN write /a 1\nRUN read /c')
      expect(ran).toEqual(['write /a 1', 'read /c'])
      expect(said).toContainEqual(expect.stringContaining('beginning again'))
      expect(await mags.storages()).not.toContain(lost)
      expect((await mags.build('FROM alpine\nRUN write /a 1\nRUN read /c')).ran).toEqual([])
    })

    it('do without when nothing can be read or kept', async () => {
      await using mags = await open()
      await mags.build('FROM alpine\nRUN write /a 1')
      mags.host.workspaces.beforeSave = () => {
        throw new MagsError('object_store_unavailable', 'it does not answer')
      }
      const { ran, said } = await mags.build('FROM alpine AS one\nRUN write /a 1\nRUN write /b 2\nRUN read /b\nFROM one\nRUN read /b')
      expect(said).toContain('the cache keeps nothing from here on: it does not answer')
      expect(ran.slice(-2)).toEqual(['read /b', 'read /b'])
      mags.host.workspaces.beforeSave = () => undefined
      const acquire = mags.host.acquire.bind(mags.host)
      mags.host.acquire = async (spec, ...rest) => {
        if (spec.workspace || spec.base) throw new MagsError('object_store_unavailable', 'it does not answer')
        return await acquire(spec, ...rest)
      }
      expect((await mags.build('FROM alpine\nRUN write /a 1\nRUN c')).ran).toEqual(['write /a 1', 'c'])
      mags.host.acquire = acquire
      expect((await mags.build('FROM alpine\nRUN write /a 1\nRUN c')).ran).toEqual(['c'])
    })

    it('lose what nobody used for longest when there is too much, and not what a build uses', async () => {
      await using mags = await open({ maxBytes: 25 })
      const of = (name: string) => `FROM alpine\nRUN write /a ${name.repeat(10)}`
      for (const name of ['a', 'b']) {
        await mags.build(of(name))
        mags.now.ms += 1000
      }
      await mags.build(of('a'))
      mags.now.ms += 1000
      await mags.build(of('c'))
      expect((await mags.build(of('a'))).ran).toEqual([])
      const [, , ...none] = await mags.storages()
      expect(none).toEqual([])
      await using using_ = mags.world.cache.open('me', { fresh: false })
      const held = await mags.database.selectFrom('build_steps').select(['key', 'storage_id']).where('image_digest', 'is', null).execute()
      for (const { key } of held) await using_?.find([key])
      mags.world.cache = mags.newCache(25)
      const letGo = held.map(({ storage_id: id }) => mags.world.cache.use(id))
      mags.now.ms += 31 * daysMs
      await mags.world.cache.tend()
      expect(await mags.storages()).toHaveLength(2)
      for (const end of letGo) end()
      await mags.world.cache.tend()
      expect(await mags.storages()).toEqual([])
      expect(await mags.store.listRemoved()).toEqual([])
    })

    it('keep nothing that is larger than the cache, and nothing at all when it has no room', async () => {
      await using mags = await open({ maxBytes: 5 })
      const { said } = await mags.build('FROM alpine\nRUN write /a 1\nRUN write /b 1234567\nRUN write /c 1')
      expect(said).toContain('the cache keeps nothing from here on: it is not large enough')
      expect((await mags.build('FROM alpine\nRUN write /a 1\nRUN read /a')).ran).toEqual(['read /a'])
      mags.world.cache = mags.newCache(0)
      expect((await mags.build('FROM alpine\nRUN write /a 1')).ran).toEqual(['write /a 1'])
      expect(mags.host.acquired.at(-1)?.workspace).toBeUndefined()
      expect(await mags.storages()).toEqual([])
    })

    it('leave nothing after a crash but what is whole', async () => {
      await using mags = await open()
      await mags.store.begin('a'.repeat(32), 'me', '2026-01-01T00:00:00.000Z')
      const gone = { storageId: 'b'.repeat(32), version: 1 }
      await mags.store.begin(gone.storageId, 'me', '2026-01-01T00:00:00.000Z')
      await mags.store.keepStep({ ...gone, key: 'k', accountId: 'me', sizeBytes: 1 }, '2026-01-01T00:00:00.000Z')
      await mags.build('FROM alpine\nRUN write /a 1')
      const [whole = ''] = await mags.storages()
      await mags.database.updateTable('build_storages').set({ open: 1 }).where('storage_id', '=', whole).execute()
      mags.world.cache = mags.newCache()
      await mags.world.cache.tend()
      expect(await mags.storages()).toEqual([whole])
      expect(await mags.store.find('me', ['k'])).toEqual([])
      expect((await mags.build('FROM alpine\nRUN write /a 1\nRUN read /a')).ran).toEqual(['read /a'])
    })

    it('are emptied for one account, with what the object store could not take away then', async () => {
      await using mags = await open()
      await mags.build('FROM alpine\nRUN write /a 1234')
      await mags.build('FROM alpine\nRUN write /a 12', { accountId: 'you' })
      mags.host.workspaces.fault = new MagsError('object_store_unavailable', 'it does not answer')
      expect(await mags.world.cache.prune('me')).toBe(4)
      expect(await mags.store.listRemoved()).toHaveLength(1)
      mags.host.workspaces.fault = undefined
      await mags.world.cache.tend()
      expect(await mags.store.listRemoved()).toEqual([])
      expect(await mags.storages()).toHaveLength(1)
      expect((await mags.build('FROM alpine\nRUN write /a 1234')).ran).toHaveLength(1)
    })

    it('have nothing of an argument in the database', async () => {
      await using mags = await open()
      await mags.build('FROM alpine\nARG TOKEN\nRUN use the token', { buildArgs: { TOKEN: 'a-secret' } })
      const rows = [await mags.database.selectFrom('build_steps').selectAll().execute(), await mags.database.selectFrom('build_storages').selectAll().execute()]
      expect(JSON.stringify(rows)).not.toMatch(/secret|token/i)
      expect(rows.flat()).toHaveLength(3)
    })
  })
})
