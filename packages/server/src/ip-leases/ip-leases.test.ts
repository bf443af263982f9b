import type { HostCapabilities } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { databaseKinds, lacksDatabase, useTestDatabases } from '../../../../tests/kit/test-databases.ts'
import { type Job, noTimings } from '../jobs/job.ts'
import { storeJob } from '../jobs/start-job.ts'
import { JobStore } from '../jobs/store.ts'
import { type DatabaseConfig, openDatabase } from '../state/database.ts'
import { GroupCommit } from '../state/group-commit.ts'
import { FakeHost } from '../testing/fake-host.ts'
import { makeJob } from '../testing/make-job.ts'
import { WorkspaceStore } from '../workspaces/store.ts'
import { listLeases, purgeLeases } from './store.ts'

const ended = { status: 'completed' as const, exitCode: 0, error: null, timings: noTimings }

describe.each(databaseKinds)('leased addresses on %s', (kind) => {
  describe.skipIf(lacksDatabase(kind))('allocation', () => {
    const newDatabase = useTestDatabases(kind)

    async function open(addressPrefixes: readonly string[], config: DatabaseConfig = newDatabase(), isolation: HostCapabilities['default'] = 'container') {
      const db = await openDatabase(config)
      const commits = new GroupCommit(db, config.kind)
      const store = new JobStore(db, commits)
      const workspaces = new WorkspaceStore(db, commits)
      const host = { capabilities: () => ({ ...new FakeHost().capabilities(), default: isolation, addressPrefixes }) }
      const submit = (change: Partial<Job> = {}) =>
        commits.write((transaction) => storeJob({ store, workspaces, host }, transaction, makeJob({ ipLease: true, ...change })))
      const end = (job: Job, completedAt: string) => store.finish(job.requestId, { ...ended, completedAt })
      const leases = async () => (await listLeases(db)).map(({ address }) => address)
      return { config, db, commits, store, submit, end, leases, [Symbol.asyncDispose]: () => db.destroy() }
    }

    it('gives one of each kind that there is, stored with the job, and takes it at its end', async () => {
      await using state = await open(['203.0.113.8/30', '2001:db8:1::/64'])
      const job = await state.submit()
      expect(job).toMatchObject({ ipv4Address: '203.0.113.9', ipv6Address: expect.stringMatching(/^2001:db8:1:/) })
      expect(await state.store.get(job.requestId)).toMatchObject({ ipv4Address: job.ipv4Address, ipv6Address: job.ipv6Address })
      expect((await state.leases()).sort()).toEqual([job.ipv6Address, job.ipv4Address])
      expect(await state.submit({ ipLease: false })).toMatchObject({ ipv4Address: null, ipv6Address: null })
      expect(await state.end(job, '2026-01-01T00:00:00.000Z')).toBe(true)
      expect(await state.leases()).toEqual([])
      expect(await state.store.get(job.requestId)).toMatchObject({ status: 'completed', ipv4Address: null, ipv6Address: null })
    })

    it('never hands out twice, also to many at once, and says when there is none', async () => {
      await using state = await open(['203.0.113.8/29'])
      const results = await Promise.allSettled(Array.from({ length: 9 }, () => state.submit()))
      const given = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value.ipv4Address] : []))
      expect(new Set(given).size).toBe(6)
      expect(given.length).toBe(6)
      for (const result of results)
        if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'no_capacity', details: { retry_after_seconds: 30 } })
      expect((await state.db.selectFrom('jobs').select('request_id').execute()).length).toBe(6)
    })

    it('hands out last what was released last', async () => {
      await using state = await open(['203.0.113.8/30', '203.0.113.16/32'])
      const jobs = [await state.submit(), await state.submit()] as const
      await state.end(jobs[1], '2026-01-01T00:00:01.000Z')
      await state.end(jobs[0], '2026-01-01T00:00:02.000Z')
      const next = [await state.submit(), await state.submit(), await state.submit()]
      expect(next.map(({ ipv4Address }) => ipv4Address)).toEqual(['203.0.113.16', '203.0.113.10', '203.0.113.9'])
      await expect(state.submit()).rejects.toMatchObject({ code: 'no_capacity' })
      // Ended twice, or late: what another has by now stays with it.
      expect(await state.end(jobs[0], '2026-01-01T00:00:03.000Z')).toBe(false)
      expect((await state.leases()).length).toBe(3)
    })

    it('keeps it over a retry', async () => {
      await using state = await open(['203.0.113.8/29'])
      const job = await state.submit({ maxRetries: 1 })
      expect(await state.store.retry(job.requestId, '2026-01-01T00:00:00.000Z')).toBe(true)
      expect(await state.store.get(job.requestId)).toMatchObject({ status: 'pending', attempt: 2, ipv4Address: job.ipv4Address })
      expect(await state.leases()).toEqual([job.ipv4Address])
    })

    it('has no address without a job: what its transaction takes goes with it', async () => {
      await using state = await open(['203.0.113.8/29'])
      await state.submit()
      const failing = state.commits.write(async () => {
        throw new Error('no')
      })
      const both = await Promise.allSettled([state.submit({ name: 'stays' }), failing])
      expect(both.map(({ status }) => status)).toEqual(['fulfilled', 'rejected'])
      expect(await state.leases()).toEqual(['203.0.113.10', '203.0.113.9'])
    })

    it('refuses clearly where there is no prefix, and gives IPv6 alone where there is nothing else', async () => {
      await using none = await open([])
      await expect(none.submit()).rejects.toMatchObject({ code: 'not_available', message: expect.stringContaining('MAGS_IP_PREFIXES') })
      await using six = await open(['2001:db8:1::/64'], undefined, 'kvm')
      for (const isolationWish of ['auto', 'container'] as const)
        expect(await six.submit({ isolationWish })).toMatchObject({ ipv4Address: null, ipv6Address: expect.stringContaining('2001:db8:1:') })
      expect((await six.leases()).length).toBe(2)
    })

    it('at a start gives back what jobs have that are over, and forgets what was released long ago', async () => {
      await using state = await open(['203.0.113.8/29'])
      const [over, waiting] = [await state.submit(), await state.submit()]
      // As a server of an earlier version, or a hand in the database, would leave it.
      await state.db.updateTable('jobs').set({ status: 'error' }).where('request_id', '=', over.requestId).execute()
      await purgeLeases(state.commits, { now: '2026-01-01T01:00:00.000Z', before: '2026-01-01T00:00:00.000Z' })
      expect(await state.leases()).toEqual([waiting.ipv4Address])
      expect((await state.submit()).ipv4Address).toBe('203.0.113.11')
      await purgeLeases(state.commits, { now: '2026-01-01T03:00:00.000Z', before: '2026-01-01T02:00:00.000Z' })
      expect((await state.submit()).ipv4Address).toBe(over.ipv4Address)
    })

    it.skipIf(kind === 'sqlite')('two servers on one database race for the last addresses', async () => {
      const config = newDatabase()
      await using one = await open(['203.0.113.8/29'], config)
      await using other = await open(['203.0.113.8/29'], config)
      const released = [await one.submit(), await one.submit()]
      for (const job of released) await one.end(job, '2026-01-01T00:00:00.000Z')
      const results = await Promise.allSettled(Array.from({ length: 10 }, (_, place) => (place % 2 === 0 ? one : other).submit()))
      const given = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value.ipv4Address] : []))
      expect(new Set(given).size).toBe(6)
      expect(given.length).toBe(6)
      for (const result of results) if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'no_capacity' })
    })
  })
})
