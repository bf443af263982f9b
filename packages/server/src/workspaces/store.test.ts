import { describe, expect, it } from 'vitest'
import { databaseKinds, lacksDatabase, useTestDatabases } from '../../../../tests/kit/test-databases.ts'
import { newRequestId, noTimings } from '../jobs/job.ts'
import { JobStore } from '../jobs/store.ts'
import { type DatabaseConfig, openDatabase } from '../state/database.ts'
import { GroupCommit } from '../state/group-commit.ts'
import { makeJob } from '../testing/make-job.ts'
import { holdWorkspaces, type WorkspaceWish } from './hold-workspaces.ts'
import { WorkspaceStore } from './store.ts'

const now = '2026-01-01T00:00:00.000Z'
const image = { name: 'debian-12', digest: 'sha256:d12' }
const version = (number: number) => ({
  version: number,
  createdAt: now,
  reason: 'sync' as const,
  sizeBytes: 5_000_000_000 * number,
  entryCount: 1,
  uploadedBytes: 1,
  image,
})
const ended = { status: 'completed' as const, exitCode: 0, error: null, timings: noTimings, completedAt: now }

describe.each(databaseKinds)('workspaces on %s', (kind) => {
  describe.skipIf(lacksDatabase(kind))('store', () => {
    const newDatabase = useTestDatabases(kind)

    async function open(database: DatabaseConfig = newDatabase()) {
      const db = await openDatabase(database)
      const commits = new GroupCommit(db, database.kind)
      const jobs = new JobStore(db, commits)
      const store = new WorkspaceStore(db, commits)
      /** Stores a job as a submit does. */
      const submit = (change: Partial<WorkspaceWish> = {}) => {
        const wish = { accountId: 'local', requestId: newRequestId(), workspaceId: 'w', baseWorkspaceId: null, image, diskGb: undefined, now, ...change }
        return commits.write(async (transaction) => {
          const { accountId, requestId, workspaceId, baseWorkspaceId } = wish
          const held = await holdWorkspaces(transaction, store, wish)
          const job = makeJob({ requestId, accountId, workspaceId, baseWorkspaceId, ...held })
          await jobs.insert(transaction, job)
          return job
        })
      }
      return { config: database, db, jobs, store, submit, [Symbol.asyncDispose]: () => db.destroy() }
    }

    it('gives a workspace to one job at a time, with a higher fence each time', async () => {
      await using state = await open()
      const first = await state.submit()
      expect(first).toMatchObject({ workspaceFence: 1, workspaceVersion: 0, workspaceStorageId: expect.stringMatching(/^[0-9a-f]{32}$/) })
      expect(await state.jobs.get(first.requestId)).toEqual(first)
      await expect(state.submit()).rejects.toThrow(
        `workspace 'w' is already in use by job ${first.requestId} (status: pending); use 'mags exec w <command>' to run commands on it, or 'mags ssh w' to connect interactively`,
      )
      await state.jobs.finish(first.requestId, ended)
      expect((await state.store.find('local', 'w'))?.holderRequestId).toBeNull()
      expect(await state.submit()).toMatchObject({ workspaceFence: 2, workspaceStorageId: first.workspaceStorageId })
    })

    it('lets one of many win that come at once, and leaves no trace of the others', async () => {
      await using state = await open()
      await using other = await open(state.config)
      const results = await Promise.allSettled(Array.from({ length: 10 }, (_, index) => (index % 2 ? state : other).submit()))
      expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
      for (const result of results) if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'workspace_in_use' })
      expect((await state.jobs.list('local', { offset: 0, limit: 99 })).total).toBe(1)
      expect((await state.store.list('local', { offset: 0, limit: 99 })).total).toBe(1)
    })

    it('is of one kind for all its life: the whole file system, or one folder', async () => {
      await using state = await open()
      const first = await state.submit({ scope: '/workspace' })
      await state.jobs.finish(first.requestId, ended)
      expect(await state.store.find('local', 'w')).toMatchObject({ scope: '/workspace' })
      await expect(state.submit()).rejects.toMatchObject({ code: 'bad_request', message: expect.stringContaining("workspace 'w' keeps /workspace only") })
      const { storageId = '' } = (await state.store.find('local', 'w')) ?? {}
      expect(await state.store.takeFence(storageId)).toEqual({ storageId, fence: 2, scope: '/workspace' })
      const whole = await state.submit({ workspaceId: 'whole' })
      await state.jobs.finish(whole.requestId, ended)
      await expect(state.submit({ workspaceId: 'whole', scope: '/workspace' })).rejects.toMatchObject({
        message: expect.stringContaining('its whole file system'),
      })
    })

    it('takes no hold when the job cannot be stored, and the other way round', async () => {
      await using state = await open()
      const first = await state.submit()
      await state.jobs.finish(first.requestId, ended)
      // The same request id a second time: the insert fails after the hold was taken.
      await expect(state.submit({ requestId: first.requestId })).rejects.toThrow()
      expect(await state.store.find('local', 'w')).toMatchObject({ holderRequestId: null, fence: 1 })
      await expect(state.submit({ workspaceId: 'new', requestId: first.requestId })).rejects.toThrow()
      expect(await state.store.find('local', 'new')).toBeUndefined()
    })

    it('keeps accounts apart', async () => {
      await using state = await open()
      await state.submit()
      await state.submit({ accountId: 'other' })
      expect((await state.store.list('local', { offset: 0, limit: 9 })).total).toBe(1)
      await expect(state.submit({ workspaceId: null, baseWorkspaceId: 'x', accountId: 'other' })).rejects.toMatchObject({ code: 'not_found' })
    })

    it('notes versions, which only grow, for the workspace and the job', async () => {
      await using state = await open()
      const { requestId, workspaceStorageId } = await state.submit()
      const storageId = workspaceStorageId ?? ''
      await state.store.recordUnsaved(storageId, '2026-01-02', 'first')
      await state.store.recordUnsaved(storageId, '2026-01-03', 'second')
      expect(await state.store.byStorageId(storageId)).toMatchObject({ unsavedSince: '2026-01-02', saveError: 'second', version: 0, syncedAt: null })
      await state.store.recordSaved(storageId, version(2), { now: '2026-01-04', requestId, uploadedBytes: 3_000_000_000 })
      await state.store.recordSaved(storageId, version(2), { now: '2026-01-05', requestId, uploadedBytes: 7 })
      await state.store.recordVersion(storageId, version(1))
      expect(await state.store.byStorageId(storageId)).toMatchObject({
        version: 2,
        sizeBytes: 10_000_000_000,
        syncedAt: '2026-01-05',
        unsavedSince: null,
        saveError: null,
      })
      expect(await state.jobs.get(requestId)).toMatchObject({
        workspaceVersion: 2,
        workspaceSyncedAt: '2026-01-05',
        workspaceUploadedBytes: 3_000_000_007,
        workspaceSizeBytes: 10_000_000_000,
      })
    })

    it('gives fences to others only while no job has it', async () => {
      await using state = await open()
      const { requestId, workspaceStorageId } = await state.submit()
      const storageId = workspaceStorageId ?? ''
      expect(await state.store.takeFence(storageId)).toBeUndefined()
      expect(await state.store.markRemoved(storageId, now)).toBe(false)
      await state.jobs.finish(requestId, ended)
      expect(await state.store.takeFence(storageId)).toEqual({ storageId, fence: 2 })
      expect((await state.submit()).workspaceFence).toBe(3)
    })

    it('frees a name at once, and never gives its storage a second time', async () => {
      await using state = await open()
      const first = await state.submit()
      await state.jobs.finish(first.requestId, ended)
      const storageId = first.workspaceStorageId ?? ''
      expect(await state.store.markRemoved(storageId, now)).toBe(true)
      expect(await state.store.markRemoved(storageId, now)).toBe(false)
      expect(await state.store.takeFence(storageId)).toBeUndefined()
      expect(await state.store.listRemoved()).toEqual([storageId])
      const second = await state.submit()
      expect(second.workspaceStorageId).not.toBe(storageId)
      await state.store.forget(storageId)
      await state.store.forget(second.workspaceStorageId ?? '')
      expect(await state.store.listRemoved()).toEqual([])
      expect((await state.store.list('local', { offset: 0, limit: 9 })).total).toBe(1)
    })

    it('publishes a fork under a name that is free only', async () => {
      await using state = await open()
      await state.submit()
      const workspace = await state.store.find('local', 'w')
      if (workspace === undefined) throw new Error('no workspace')
      const fork = (workspaceId: string) => ({ ...workspace, workspaceId, storageId: `s-${workspaceId}`, holderRequestId: null })
      for (const name of ['w', 'x']) await state.store.insertRemoved(fork(name))
      expect(await state.store.find('local', 'x')).toBeUndefined()
      expect(await state.store.publish('s-w', version(1), now)).toBeUndefined()
      expect(await state.store.publish('s-x', version(1), now)).toMatchObject({ workspaceId: 'x', version: 1 })
      expect(await state.store.find('local', 'x')).toMatchObject({ version: 1, syncedAt: now, holderRequestId: null })
      expect(await state.store.listRemoved()).toEqual(['s-w'])
    })

    it('finds who starts from it, and frees what no job has any more', async () => {
      await using state = await open()
      const { requestId, workspaceStorageId } = await state.submit()
      await state.store.recordSaved(workspaceStorageId ?? '', version(1), { now })
      const worker = await state.submit({ workspaceId: null, baseWorkspaceId: 'w' })
      const workspace = await state.store.find('local', 'w')
      if (workspace === undefined) throw new Error('no workspace')
      expect(await state.store.userOf(workspace)).toEqual({ requestId: worker.requestId, status: 'pending' })
      expect(await state.store.releaseStale()).toBe(0)
      await state.db.deleteFrom('jobs').where('request_id', '=', requestId).execute()
      expect(await state.store.holderOf(workspace)).toBeUndefined()
      expect(await state.store.releaseStale()).toBe(1)
      await state.jobs.finish(worker.requestId, ended)
      expect(await state.store.userOf(workspace)).toBeUndefined()
    })

    it('passes over a holder that is no more', async () => {
      await using state = await open()
      const { requestId } = await state.submit()
      await state.db.deleteFrom('jobs').where('request_id', '=', requestId).execute()
      expect((await state.submit()).workspaceFence).toBe(2)
    })

    it('lists pages, newest first', async () => {
      await using state = await open()
      for (const workspaceId of ['a', 'b', 'c']) await state.submit({ workspaceId })
      const page = await state.store.list('local', { offset: 1, limit: 1 })
      expect(page).toMatchObject({ total: 3, workspaces: [{ workspaceId: 'b' }] })
    })

    it('grows a disk and never shrinks it', async () => {
      await using state = await open()
      const { workspaceStorageId } = await state.submit({ diskGb: 5 })
      expect(await state.store.grow(workspaceStorageId ?? '', 4, now)).toBe(false)
      expect(await state.store.grow(workspaceStorageId ?? '', 8, now)).toBe(true)
      expect((await state.store.find('local', 'w'))?.diskGb).toBe(8)
    })
  })
})
