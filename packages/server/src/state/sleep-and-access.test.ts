import { Migrator } from 'kysely/migration'
import { describe, expect, it } from 'vitest'
import { databaseKinds, lacksDatabase, useTestDatabases } from '../../../../tests/kit/test-databases.ts'
import { ownerOf } from '../access/owner.ts'
import { SecretKey } from '../access/secret-key.ts'
import { SshKeyStore } from '../access/ssh-key-store.ts'
import { AccessStore, noAccess } from '../access/store.ts'
import { type Job, noTimings } from '../jobs/job.ts'
import { JobStore } from '../jobs/store.ts'
import { makeJob } from '../testing/make-job.ts'
import { resting, startSleepServer } from '../testing/sleep-server.ts'
import { WorkspaceStore } from '../workspaces/store.ts'
import { newStorageId, type Workspace } from '../workspaces/workspace.ts'
import { connectDatabase, type DatabaseConfig, openDatabase } from './database.ts'
import { GroupCommit } from './group-commit.ts'
import { migrationsFor } from './migrations.ts'
import { timestamp } from './timestamp.ts'

const now = timestamp(0)

const makeWorkspace = (workspaceId: string, holderRequestId: string | null): Workspace => ({
  accountId: 'local',
  workspaceId,
  storageId: newStorageId(),
  fence: 1,
  image: 'debian-12',
  imageDigest: 'sha256:d12',
  diskGb: 2,
  sizeBytes: 0,
  version: 0,
  baseWorkspaceId: null,
  scope: null,
  createdAt: now,
  updatedAt: now,
  syncedAt: null,
  unsavedSince: null,
  saveError: null,
  holderRequestId,
})

/** Another program listens on it. */
const portOfAnother = 40_002

describe.each(databaseKinds)('sleep and access on %s', (kind) => {
  describe.skipIf(lacksDatabase(kind))('stores', () => {
    const newDatabase = useTestDatabases(kind)

    async function open(database: DatabaseConfig = newDatabase()) {
      const db = await openDatabase(database)
      const commits = new GroupCommit(db, database.kind)
      const store = new JobStore(db, commits)
      const workspaces = new WorkspaceStore(db, commits)
      const access = new AccessStore({
        database: db,
        commits,
        secretKey: new SecretKey(Buffer.alloc(32)),
        clock: () => 0,
        portFirst: 40_000,
        portIsFree: async (port) => port !== portOfAnother,
      })
      const insert = (job: Job) => commits.write((transaction) => store.insert(transaction, job))
      const insertWorkspace = (workspace: Workspace) => commits.write((transaction) => workspaces.insert(transaction, workspace))
      return {
        db,
        commits,
        store,
        workspaces,
        access,
        sshKeys: new SshKeyStore(db, commits),
        insert,
        insertWorkspace,
        [Symbol.asyncDispose]: () => db.destroy(),
      }
    }

    it('takes over the jobs and workspaces of an older server', async () => {
      const database = newDatabase()
      const old = await connectDatabase(database)
      const all = migrationsFor(kind)
      const before = Object.fromEntries(Object.entries(all).filter(([name]) => name < '0004'))
      const { error } = await new Migrator({ db: old, provider: { getMigrations: async () => before } }).migrateToLatest()
      expect(error).toBeUndefined()
      const job = makeJob({ status: 'running', persistent: true, vmId: 'aabbccddeeff' })
      const row = {
        ...{ request_id: job.requestId, job_id: job.jobId, account_id: job.accountId, name: job.name, status: job.status, persistent: 1, script: job.script },
        ...{ environment: '{}', no_sleep: 0, image: job.image, isolation_wish: job.isolationWish, vcpus: 1, memory_mb: 512, disk_gb: 2, port: 8080 },
        ...{ subdomain: job.subdomain, vm_id: job.vmId, created_at: job.createdAt, file_ids: '[]' },
      }
      await old.insertInto('jobs').values(row).execute()
      const storageId = newStorageId()
      const workspace = makeWorkspace('w', null)
      const workspaceRow = {
        ...{ storage_id: storageId, account_id: 'local', workspace_id: 'w', fence: 1, image: workspace.image, image_digest: workspace.imageDigest },
        ...{ disk_gb: 2, size_bytes: 0, version: 0, created_at: now, updated_at: now },
      }
      await old.insertInto('workspaces').values(workspaceRow).execute()
      await old.destroy()
      await using state = await open(database)
      expect(await state.store.get(job.requestId)).toMatchObject({ sleepStage: null, restarted: false, urlUsed: false, egress: null, vmId: 'aabbccddeeff' })
      expect(await state.workspaces.bySubdomain(storageId.slice(0, 12))).toMatchObject({ workspaceId: 'w', storageId })
      expect(await state.access.find(`j:${job.requestId}`)).toEqual(noAccess)
    })

    it('keeps how a job sleeps, step by step', async () => {
      await using state = await open()
      const job = makeJob({ persistent: true, status: 'running', vmId: 'aabbccddeeff', egress: { allow: ['example.org'] }, egressBytes: 2 ** 40 })
      const { requestId } = job
      await state.insert(job)
      expect(await state.store.get(requestId)).toEqual(job)
      const wake = {
        vmId: 'ffeeddccbbaa',
        isolation: 'container' as const,
        wokenAt: timestamp(2),
        reason: 'http',
        durationMs: 1.5,
        restarted: false,
      }
      expect([await state.store.markAwake(requestId, wake), await state.store.setSleepStage(requestId, 'hibernated')]).toEqual([false, false])
      expect([await state.store.markSleeping(requestId, timestamp(1)), await state.store.markSleeping(requestId, timestamp(1))]).toEqual([true, false])
      expect(await state.store.get(requestId)).toMatchObject({ status: 'sleeping', sleepStage: 'frozen', sleptAt: timestamp(1), vmId: 'aabbccddeeff' })
      // What its script did may be noted late.
      expect(await state.store.setScriptExit(requestId, 3, noTimings)).toBe(true)
      await state.store.setSleepStage(requestId, 'released')
      expect(await state.store.get(requestId)).toMatchObject({ sleepStage: 'released', vmId: null, exitCode: 3 })
      expect(await state.store.listUnfinished()).toMatchObject([{ requestId, status: 'sleeping' }])
      expect(await Promise.all([state.store.markAwake(requestId, { ...wake, restarted: true }), state.store.markAwake(requestId, wake)])).toEqual([true, false])
      expect(await state.store.get(requestId)).toMatchObject({
        ...{ status: 'running', sleepStage: null, vmId: 'ffeeddccbbaa', wokenAt: timestamp(2), wakeReason: 'http', wakeMs: 1.5, restarted: true },
      })
      await state.store.markUrlUsed(requestId)
      await state.store.setEgressBytes(requestId, 2 ** 41)
      await state.store.update(requestId, { port: 3000, egress: null })
      expect(await state.store.get(requestId)).toMatchObject({ urlUsed: true, egressBytes: 2 ** 41, port: 3000, egress: null })
      await state.store.markSleeping(requestId, timestamp(3))
      await state.store.finish(requestId, { status: 'stopped', exitCode: 3, error: null, timings: noTimings, completedAt: timestamp(4) })
      expect(await state.store.get(requestId)).toMatchObject({ status: 'stopped', sleepStage: null })
      expect(await state.store.markAwake(requestId, wake)).toBe(false)
    })

    it('finds jobs by subdomain and workspace, the one that is not over first', async () => {
      await using state = await open()
      const live = makeJob({ status: 'sleeping', workspaceId: 'w' })
      const over = makeJob({ status: 'completed', workspaceId: 'w' })
      for (const job of [live, over, makeJob({ workspaceId: 'w', accountId: 'other' })]) await state.insert(job)
      expect((await state.store.findByWorkspace('local', 'w'))?.requestId).toBe(live.requestId)
      expect(await state.store.findByWorkspace('local', 'x')).toBeUndefined()
      expect((await state.store.findBySubdomain(over.subdomain))?.requestId).toBe(over.requestId)
      expect(await state.store.findBySubdomain(`' or 1=1 --`)).toBeUndefined()
    })

    it('gives a new fence to whoever holds a workspace, and to nobody else', async () => {
      await using state = await open()
      const workspace = makeWorkspace('w', 'mine')
      await state.insertWorkspace(workspace)
      await state.insert(makeJob({ requestId: 'mine', status: 'sleeping', workspaceStorageId: workspace.storageId, workspaceFence: 1 }))
      expect(await state.workspaces.renewFence(workspace.storageId, 'mine')).toBe(2)
      expect(await state.store.get('mine')).toMatchObject({ workspaceFence: 2 })
      expect(await state.workspaces.renewFence(workspace.storageId, 'another')).toBeUndefined()
      expect(await state.workspaces.byStorageId(workspace.storageId)).toMatchObject({ fence: 2, holderRequestId: 'mine' })
    })

    it('keeps how owners are reached, and forgets those that are gone', async () => {
      await using state = await open()
      const workspace = makeWorkspace('w', null)
      await state.insertWorkspace(workspace)
      const [live, over] = [makeJob({ status: 'running' }), makeJob({ status: 'stopped' })]
      for (const job of [live, over]) await state.insert(job)
      const owners = [live, over, { requestId: 'x', workspaceStorageId: workspace.storageId }, { requestId: 'x', workspaceStorageId: newStorageId() }].map(
        ownerOf,
      )
      const made = await Promise.all([...owners, ...owners].map((owner) => state.access.sshOf(owner)))
      expect(made.slice(0, 4)).toEqual(made.slice(4))
      expect(
        made
          .slice(0, 4)
          .map(({ port }) => port)
          .sort(),
      ).toEqual([40_000, 40_001, 40_003, 40_004])
      const [first = ''] = owners
      await state.access.setVisibility(live, 'token')
      expect(await state.access.find(first)).toEqual({ visibility: 'token', sshPort: made[0]?.port, sshPublicKey: made[0]?.publicKey, authorizedKeys: [] })
      expect(await state.access.findOwnersByKey(made[0]?.publicKey ?? '')).toEqual([first])
      await state.access.purge()
      expect(await Promise.all(owners.map(async (owner) => (await state.access.find(owner)).sshPort !== null))).toEqual([true, false, true, false])
      await state.workspaces.markRemoved(workspace.storageId, now)
      expect(await state.access.find(owners[2] ?? '')).toEqual(noAccess)
      await state.access.forget(first)
      expect(await state.access.find(first)).toEqual(noAccess)
      // Visibility first, then a port: one row.
      await state.access.setVisibility(over, 'token')
      expect((await state.access.sshOf(ownerOf(over))).port).toBe(40_000)
      expect(await state.access.find(ownerOf(over))).toMatchObject({ visibility: 'token', sshPort: 40_000 })
    })

    it('keeps SSH keys by account', async () => {
      await using state = await open()
      const publicKey = 'ssh-ed25519 AAAA'
      const mine = await state.sshKeys.add('local', { name: 'a', publicKey }, now)
      await state.sshKeys.add('other', { name: 'b', publicKey }, now)
      expect(await state.sshKeys.add('local', { name: 'c', publicKey }, now)).toEqual(mine)
      expect((await state.sshKeys.accountsWith(publicKey)).sort()).toEqual(['local', 'other'])
      expect(await state.sshKeys.remove('other', mine.id)).toBe(false)
      expect(await state.sshKeys.remove('local', mine.id)).toBe(true)
      expect(await state.sshKeys.list('local')).toEqual([])
    })

    it('carries a whole server whose jobs sleep', async () => {
      await using mags = await startSleepServer({ deps: { database: newDatabase() } })
      const ids = await Promise.all(Array.from({ length: 5 }, (_, index) => resting(mags, { script: 'write /a one', workspace_id: `w${index}` })))
      await Promise.all(ids.map((id) => mags.call('POST', `/mags-jobs/${id}/sleep`, { release: true })))
      const answers = await Promise.all([...ids, ...ids].map((id) => mags.call('POST', `/mags-jobs/${id}/exec`, { command: 'read /a' })))
      expect(answers.map(({ body }) => body.stdout)).toEqual(Array.from({ length: 10 }, () => 'one\n'))
      expect(mags.host.sandboxes.size).toBe(5)
    })
  })
})
