import { sql } from 'kysely'
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { databaseKinds, lacksDatabase, useTestDatabases } from '../../../../tests/kit/test-databases.ts'
import { FileStore } from '../files/store.ts'
import { IdempotencyStore } from '../jobs/idempotency-store.ts'
import { type Job, noTimings } from '../jobs/job.ts'
import { JobStore } from '../jobs/store.ts'
import { makeJob } from '../testing/make-job.ts'
import { startTestServer } from '../testing/test-server.ts'
import { TokenStore } from '../tokens/store.ts'
import { Tokens } from '../tokens/tokens.ts'
import { holdWorkspaces } from '../workspaces/hold-workspaces.ts'
import { WorkspaceStore } from '../workspaces/store.ts'
import { type DatabaseConfig, openDatabase } from './database.ts'
import { GroupCommit } from './group-commit.ts'
import { timestamp } from './timestamp.ts'

describe.each(databaseKinds)('state on %s', (kind) => {
  describe.skipIf(lacksDatabase(kind))('stores', () => {
    const newDatabase = useTestDatabases(kind)

    async function open(database: DatabaseConfig = newDatabase()) {
      const db = await openDatabase(database)
      const commits = new GroupCommit(db, database.kind)
      const store = new JobStore(db, commits)
      const insert = (job: Job) => commits.write((transaction) => store.insert(transaction, job))
      return { config: database, db, commits, store, insert, [Symbol.asyncDispose]: () => db.destroy() }
    }

    it('keeps a job as it was given, also over a restart', async () => {
      const timings = { queueMs: 0.001, acquireMs: 1.5, attachMs: 2.25, firstByteMs: 3, startMs: 6.751, scriptMs: 10 }
      const job = makeJob({ persistent: true, noSleep: true, timeoutSeconds: null, startupCommand: 'node .', timings })
      await using first = await open()
      await first.insert(job)
      expect(await first.store.get(job.requestId)).toEqual(job)
      await using second = await open(first.config)
      expect(await second.store.get(job.requestId)).toEqual(job)
    })

    it('goes back to flushing after a write that needed none', async () => {
      await using state = await open()
      const flushes = async () =>
        kind === 'sqlite'
          ? (await sql<{ synchronous: number }>`pragma synchronous`.execute(state.db)).rows[0]?.synchronous
          : (await sql<{ synchronous_commit: string }>`show synchronous_commit`.execute(state.db)).rows[0]?.synchronous_commit
      const before = await flushes()
      const job = makeJob()
      await state.insert(job)
      await state.store.setTimings(job.requestId, noTimings)
      const failing = state.commits.write(() => Promise.reject(new Error('no')), { flushed: false })
      await expect(failing).rejects.toThrow('no')
      expect(await flushes()).toBe(before)
      expect(before).toBe(kind === 'sqlite' ? 2 : 'on')
    })

    it('changes a status only from the one it expects', async () => {
      await using state = await open()
      const { requestId } = makeJob()
      await state.insert(makeJob({ requestId }))
      const running = { vmId: 'aabbccddeeff', isolation: 'container' as const, queueMs: 1, acquireMs: 2, startedAt: timestamp(0) }
      const stopped = { status: 'stopped' as const, exitCode: null, error: null, timings: noTimings, completedAt: timestamp(1) }
      const results = await Promise.all([
        state.store.markRunning(requestId, running),
        state.store.markRunning(requestId, running),
        state.store.finish(requestId, stopped),
      ])
      expect(results).toEqual([true, false, true])
      expect(await state.store.finish(requestId, { ...stopped, status: 'error' })).toBe(false)
      expect(await state.store.update(requestId, { noSleep: true })).toBe(false)
      expect(await state.store.get(requestId)).toMatchObject({ status: 'stopped', vmId: 'aabbccddeeff', startedAt: timestamp(0), completedAt: timestamp(1) })
    })

    it('finds, lists and counts', async () => {
      await using state = await open()
      const [a, b, c] = [
        makeJob({ name: 'x', status: 'running' }),
        makeJob({ name: 'x', status: 'completed', workspaceId: 'w' }),
        makeJob({ accountId: 'other', name: 'x' }),
      ]
      for (const job of [a, b, c]) await state.insert(job)
      expect((await state.store.find('local', 'x'))?.requestId).toBe(a.requestId)
      expect((await state.store.find('local', 'w'))?.requestId).toBe(b.requestId)
      expect((await state.store.find('local', b.requestId))?.requestId).toBe(b.requestId)
      expect(await state.store.find('local', c.requestId)).toBeUndefined()
      expect(await state.store.list('local', { offset: 0, limit: 1 })).toMatchObject({ total: 2, jobs: [{ request_id: b.requestId }] })
      expect(await state.store.list('local', { offset: 0, limit: 9, status: 'running', workspaceId: undefined })).toMatchObject({
        total: 1,
        jobs: [{ request_id: a.requestId }],
      })
      expect(await state.store.listUnfinished()).toMatchObject([
        { requestId: a.requestId, status: 'running' },
        { requestId: c.requestId, status: 'pending' },
      ])
    })

    it('keeps runs of other APIs by what they are runs of, and does not list them', async () => {
      await using state = await open()
      const own = makeJob({ name: 'x' })
      const runs = [1, 2, 3].map((priority) => makeJob({ name: 'x', kind: 'job', definitionId: 'd', priority, workspaceId: 'w', workspaceScope: '/workspace' }))
      for (const job of [own, ...runs]) await state.insert(job)
      const [first, second, third] = runs.map(({ requestId }) => requestId)
      expect(await state.store.list('local', { offset: 0, limit: 9 })).toMatchObject({ total: 1, jobs: [{ request_id: own.requestId }] })
      expect((await state.store.find('local', 'x'))?.requestId).toBe(own.requestId)
      expect((await state.store.find('local', first ?? ''))?.requestId).toBe(first)
      expect((await state.store.newestOf('d'))?.requestId).toBe(third)
      const page = await state.store.listOfDefinition('d', { offset: 1, limit: 1 })
      const { script: _, ...head } = runs[1] ?? own
      expect(page).toEqual({ total: 3, runs: [head] })
      const over = { status: 'stopped' as const, exitCode: null, error: null, timings: noTimings, completedAt: timestamp(1) }
      await state.store.finish(third ?? '', over)
      expect((await state.store.listUnfinishedOf('d')).map(({ requestId }) => requestId)).toEqual([first, second])
    })

    it('finds what has a workspace before what waits for it, and gives it to a waiting job only', async () => {
      await using state = await open()
      const workspaces = new WorkspaceStore(state.db, state.commits)
      const change = { kind: 'job', workspaceId: 'w', workspaceScope: '/workspace' } as const
      const [has, waits] = [makeJob(change), makeJob(change)]
      for (const job of [has, waits]) await state.insert(job)
      const wish = { accountId: 'local', workspaceId: 'w', baseWorkspaceId: null, image: { name: 'alpine', digest: 'sha256:a' }, diskGb: 7, now: timestamp(0) }
      const hold = ({ requestId }: Job) => state.store.setHeld(requestId, (transaction) => holdWorkspaces(transaction, workspaces, { ...wish, requestId }))
      const held = await hold(has)
      expect(await state.store.get(has.requestId)).toEqual({ ...has, ...held })
      await expect(hold(waits)).rejects.toMatchObject({ code: 'workspace_in_use', details: { request_id: has.requestId } })
      for (const job of [await state.store.find('local', 'w'), await state.store.findByWorkspace('local', 'w')]) expect(job?.requestId).toBe(has.requestId)
      const over = { status: 'stopped' as const, exitCode: null, error: null, timings: noTimings, completedAt: timestamp(1) }
      for (const job of [has, waits]) await state.store.finish(job.requestId, over)
      await expect(hold(waits)).rejects.toMatchObject({ code: 'job_not_running' })
      expect(await workspaces.find('local', 'w')).toMatchObject({ holderRequestId: null })
    })

    it('puts a job back for its next try', async () => {
      await using state = await open()
      const workspaces = new WorkspaceStore(state.db, state.commits)
      const jobs = [null, '/workspace'].map((workspaceScope) => makeJob({ workspaceId: workspaceScope ?? 'whole', workspaceScope, maxRetries: 1 }))
      for (const job of jobs) {
        const { requestId, accountId, workspaceId } = job
        await state.insert(job)
        const wish = { accountId, requestId, workspaceId, baseWorkspaceId: null, image: { name: 'alpine', digest: 'sha256:a' }, diskGb: 7, now: timestamp(0) }
        await state.store.setHeld(requestId, (transaction) => holdWorkspaces(transaction, workspaces, wish))
        const taken = { vmId: 'aabbccddeeff', isolation: 'container' as const, warm: true, queueMs: 1, acquireMs: 2, startedAt: timestamp(0) }
        await state.store.markRunning(requestId, taken)
        expect(await state.store.get(requestId)).toMatchObject({ status: 'running', warm: true })
        expect(await state.store.retry(requestId, timestamp(5))).toBe(true)
        expect(await state.store.get(requestId)).toMatchObject({
          ...{ status: 'pending', attempt: 2, notBefore: timestamp(5), vmId: null, isolation: null, startedAt: null, warm: null, timings: noTimings },
        })
      }
      const [whole, scoped] = jobs
      expect(await state.store.get(whole?.requestId ?? '')).toMatchObject({ workspaceStorageId: expect.any(String), workspaceFence: 2 })
      expect(await workspaces.find('local', 'whole')).toMatchObject({ holderRequestId: whole?.requestId, fence: 2 })
      expect(await state.store.get(scoped?.requestId ?? '')).toMatchObject({ workspaceStorageId: null, workspaceFence: null })
      expect(await workspaces.find('local', '/workspace')).toMatchObject({ holderRequestId: null })
      await state.store.finish(whole?.requestId ?? '', { status: 'stopped', exitCode: null, error: null, timings: noTimings, completedAt: timestamp(1) })
      expect(await state.store.retry(whole?.requestId ?? '', timestamp(5))).toBe(false)
    })

    it('commits what arrives together, and lets only the bad write fail', async () => {
      await using state = await open()
      const twin = makeJob()
      const writes = [makeJob(), twin, twin, makeJob()].map((job) =>
        state.insert(job).then(
          () => 'stored',
          () => 'refused',
        ),
      )
      expect(await Promise.all(writes)).toEqual(['stored', 'stored', 'refused', 'stored'])
      expect((await state.store.list('local', { offset: 0, limit: 9 })).total).toBe(3)
    })

    it('gives an Idempotency-Key to one only', async () => {
      await using state = await open()
      const store = new IdempotencyStore(state.db)
      const claim = (answer: string, now: string, notBefore = '2026-01-01') =>
        state.commits.write((transaction) => store.claim(transaction, { accountId: 'local', key: 'k', bodyHash: 'h' }, answer, now, notBefore))
      expect(await Promise.all([claim('first', '2026-01-02'), claim('second', '2026-01-02')])).toEqual([undefined, { bodyHash: 'h', answer: 'first' }])
      expect(await store.find('local', 'k', '2026-01-01')).toEqual({ bodyHash: 'h', answer: 'first' })
      expect(await store.find('other', 'k', '2026-01-01')).toBeUndefined()
      expect(await claim('third', '2026-01-04', '2026-01-03')).toBeUndefined()
      await store.purge('2026-01-05')
      expect(await store.find('local', 'k', '2026-01-01')).toBeUndefined()
    })

    it('knows tokens by their hash, and forgets revoked ones at once', async () => {
      await using state = await open()
      const store = new TokenStore(state.db)
      const tokens = new Tokens({ store, clock: () => 0, logger: pino({ level: 'silent' }) })
      const secret = await tokens.create('laptop')
      expect(secret).toMatch(/^mags_[0-9A-Za-z]{43}$/)
      const identity = await tokens.verify(secret)
      expect(identity?.accountId).toBe('local')
      expect(await tokens.verify(`${secret}x`)).toBeUndefined()
      expect(await tokens.verify('mags_')).toBeUndefined()
      expect(await tokens.count()).toBe(1)
      const [row] = await store.list('local')
      expect(JSON.stringify(row)).not.toContain(secret)
      expect(row).toMatchObject({ name: 'laptop', prefix: secret.slice(0, 11) })
      expect(await tokens.revoke(identity?.tokenId ?? '')).toBe(true)
      expect(await tokens.verify(secret)).toBeUndefined()
    })

    it('keeps uploaded files by account, and forgets the unused', async () => {
      await using state = await open()
      const store = new FileStore(state.db, state.commits)
      const file = (fileId: string, accountId = 'local') => ({
        fileId,
        accountId,
        fileName: 'é',
        sizeBytes: 100 * 2 ** 20,
        createdAt: '2026-01-01',
        lastUsedAt: '2026-01-01',
      })
      const ids = Array.from({ length: 1200 }, (_, index) => `file-${index}`)
      await Promise.all([...ids.map((id) => store.insert(file(id))), store.insert(file('theirs', 'other'))])
      expect(await store.find('local', ['file-7', 'theirs', 'none'])).toEqual([file('file-7')])
      expect(await store.find('local', ids)).toHaveLength(1200)
      expect(await store.list('local', { offset: 1, limit: 2 })).toMatchObject({ total: 1200, files: [{ fileId: 'file-1198' }, { fileId: 'file-1197' }] })
      expect([await store.remove('other', 'file-7'), await store.remove('local', 'file-7'), await store.remove('local', 'file-7')]).toEqual([
        false,
        true,
        false,
      ])
      await store.touch('local', ['file-8', 'theirs'], '2026-02-01')
      await store.removeUnused('2026-01-15')
      expect([...(await store.known([...ids, 'theirs']))]).toEqual(['file-8'])
    })

    it('carries a whole server', async () => {
      await using mags = await startTestServer({ deps: { database: newDatabase() } })
      const answers = await Promise.all(Array.from({ length: 20 }, () => mags.call('POST', '/mags-jobs', { script: 'echo hi' }, { 'idempotency-key': 'one' })))
      expect(new Set(answers.map(({ body }) => body.request_id)).size).toBe(1)
      const ids = await Promise.all(Array.from({ length: 20 }, () => mags.submit({ script: 'echo hi' })))
      for (const id of ids) expect(await mags.ended(id)).toMatchObject({ status: 'completed', exit_code: 0 })
    })

    it('says which database could not be opened', async () => {
      const bad: DatabaseConfig = kind === 'sqlite' ? { kind, path: '/dev/null/none/mags.db' } : { kind, url: 'postgres://u:secret@127.0.0.1:1/none' }
      const error = await openDatabase(bad).then(
        () => undefined,
        (reason: Error) => reason,
      )
      expect(error?.message).toMatch(
        kind === 'sqlite'
          ? /the database \/dev\/null\/none\/mags.db could not be opened/
          : /the PostgreSQL database postgres:\/\/u:…@127.0.0.1:1\/none could not be opened/,
      )
    })
  })
})
